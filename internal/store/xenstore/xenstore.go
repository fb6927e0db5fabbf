// Package xenstore is a client of XenStore, the store in which Xen's toolstack and the domains tell each other about
// devices. It speaks xenstored's protocol (docs/misc/xenstore.txt) over a Unix socket, as in dom0, or over the kernel's
// device, which every domain has. Relative paths start at the own domain's folder; both kinds pass unchanged.
package xenstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"netvmd/internal/store/dialog"
)

// Auto is the path that has Open look in all usual places: the sockets first, as only dom0 has one.
const Auto = "auto"

// noDeadline lifts the deadline of a file.
var noDeadline time.Time

var usualPaths = []string{"/run/xenstored/socket", "/var/run/xenstored/socket", "/dev/xen/xenbus", "/proc/xen/xenbus"}

// Error is XenStore's word for why it refuses something, such as EACCES.
type Error string

// ErrNoEntry is the word for a path that does not exist.
const ErrNoEntry Error = "ENOENT"

// Error returns the word.
func (e Error) Error() string { return string(e) }

// Client is a connection to XenStore. Its methods may be called at the same time by several goroutines. Every
// exchange ends within dialog.Timeout; one that fails for another reason than a word of XenStore's ends the
// connection.
type Client struct {
	path string
	conn *dialog.Conn[message]

	mu      sync.Mutex
	request uint32            // number of the last one
	watches map[string]func() // by token: what an event rings
}

// Open connects to the socket or device at the path, or to the first of the usual ones that answers if it is Auto.
func Open(ctx context.Context, path string) (*Client, error) {
	if path != Auto {
		stream, err := connect(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("xenstore: %w", err)
		}
		return newClient(path, stream), nil
	}
	var failures []string
	for _, p := range usualPaths {
		stream, err := connect(ctx, p)
		if err == nil {
			return newClient(p, stream), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			failures = append(failures, err.Error())
		}
	}
	if len(failures) == 0 {
		return nil, fmt.Errorf("xenstore: none of %s: %w", strings.Join(usualPaths, ", "), fs.ErrNotExist)
	}
	return nil, fmt.Errorf("xenstore: %s", strings.Join(failures, "; "))
}

func connect(ctx context.Context, path string) (dialog.Stream, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return openDevice(path)
	}
	ctx, cancel := context.WithTimeout(ctx, dialog.Timeout)
	defer cancel()
	return new(net.Dialer).DialContext(ctx, "unix", path)
}

// openDevice opens the kernel's device (xenbus_dev_frontend.c), which reads short or answers EAGAIN when it is
// non-blocking and can be polled: so the runtime waits for it as for a socket.
func openDevice(path string) (dialog.Stream, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if err := f.SetDeadline(noDeadline); err != nil { // os.ErrNoDeadline: a plain file, say
		return nil, errors.Join(fmt.Errorf("%s: not a device that can be waited for: %w", path, err), f.Close())
	}
	return f, nil
}

func newClient(path string, s dialog.Stream) *Client {
	c := &Client{path: path, watches: map[string]func(){}}
	c.conn = dialog.New(s, dialog.Protocol[message]{Read: decode, Event: c.event})
	return c
}

// Path is the socket or device that is used.
func (c *Client) Path() string { return c.path }

// Done is closed when the connection has ended, by Close or by a failure; watches say nothing any more then.
func (c *Client) Done() <-chan struct{} { return c.conn.Done() }

// Err says why the connection has ended, nil as long as it has not.
func (c *Client) Err() error { return c.conn.Err() }

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Read returns the value of a path.
func (c *Client) Read(ctx context.Context, path string) (string, error) {
	m, err := c.ask(ctx, "read", kindRead, path, "\x00")
	return string(m.payload), err
}

// Write sets the value of a path; folders on the way are made.
func (c *Client) Write(ctx context.Context, path, value string) error {
	_, err := c.ask(ctx, "write", kindWrite, path, "\x00", value)
	return err
}

// List returns the names in a folder.
func (c *Client) List(ctx context.Context, path string) ([]string, error) {
	m, err := c.ask(ctx, "list", kindDirectory, path, "\x00")
	if err != nil {
		return nil, err
	}
	names, err := m.words()
	if err != nil {
		return nil, fmt.Errorf("xenstore: list %s: %w", path, err)
	}
	return names, nil
}

// Remove deletes a path and everything below it. That it does not exist is ErrNoEntry only where the folder that it
// would be in does not exist either (xenstored's own rule).
func (c *Client) Remove(ctx context.Context, path string) error {
	_, err := c.ask(ctx, "remove", kindRemove, path, "\x00")
	return err
}

// Watch returns a channel that has a token whenever one of the paths, or something below it, may have changed: once
// at the start, as XenStore does. It lasts as long as the connection, see Done.
func (c *Client) Watch(ctx context.Context, paths ...string) (<-chan struct{}, error) {
	tokens, ring := dialog.Bell()
	for _, path := range paths {
		c.mu.Lock()
		token := strconv.Itoa(len(c.watches))
		c.watches[token] = ring
		c.mu.Unlock()
		if _, err := c.ask(ctx, "watch", kindWatch, path, "\x00", token, "\x00"); err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

// event rings for the watch that a watch event is of.
func (c *Client) event(m message) (bool, error) {
	if m.kind != kindWatchEvent {
		return false, nil
	}
	_, token, err := m.event()
	if err != nil {
		return true, err
	}
	c.mu.Lock()
	ring := c.watches[token]
	c.mu.Unlock()
	if ring == nil {
		return true, fmt.Errorf("an event of the watch %.64q, which nobody has set", token)
	}
	ring()
	return true, nil
}

// ask sends a request about a path and returns its answer.
func (c *Client) ask(ctx context.Context, verb string, k kind, path string, rest ...string) (message, error) {
	m, err := c.exchange(ctx, k, append([]string{path}, rest...))
	if err != nil {
		return message{}, fmt.Errorf("xenstore: %s %.128q: %w", verb, path, err)
	}
	return m, nil
}

func (c *Client) exchange(ctx context.Context, k kind, parts []string) (message, error) {
	if err := checkPath(parts[0]); err != nil {
		return message{}, err
	}
	c.mu.Lock()
	c.request++
	number := c.request
	c.mu.Unlock()
	request := encode(k, number, parts...)
	if length := len(request) - headerSize; length > maxPayload {
		return message{}, fmt.Errorf("%d bytes of path and value; the protocol allows %d", length, maxPayload)
	}
	var answer message
	var refused Error
	err := c.conn.Ask(ctx, request, func(m message) (bool, error) {
		if !answers(m, k, number) {
			return false, fmt.Errorf("an answer of type %d to request %d instead of type %d to request %d", m.kind, m.request, k, number)
		}
		var err error
		if m.kind == kindError {
			refused, err = m.refusal()
		}
		answer = m
		return true, err
	})
	switch {
	case err != nil:
		return message{}, fmt.Errorf("%s: %w", c.path, err)
	case refused != "":
		return message{}, refused
	}
	return answer, nil
}

// answers tells whether a message is the answer to a request. For watches Linux makes up the answer, and the number 0
// with it (xenbus_dev_frontend.c, xenbus_write_watch).
func answers(m message, k kind, number uint32) bool {
	if m.kind == kindWatch && k == kindWatch && m.request == 0 {
		return true
	}
	return m.request == number && (m.kind == k || m.kind == kindError)
}
