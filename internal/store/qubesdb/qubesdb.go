// Package qubesdb is a client of QubesDB, the store in which Qubes OS tells a domain its settings. It speaks to the
// domain's own daemon over a Unix socket (qubesdb.h). It only reads.
package qubesdb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"netvmd/internal/store/dialog"
)

// The daemon's refusals.
var (
	// ErrNoEntry: the path does not exist.
	ErrNoEntry = errors.New("no such entry")
	// ErrRefused: QubesDB gives no reason; a path with a character that it does not allow, above all.
	ErrRefused = errors.New("refused")
)

// maxList bounds the entries of one list. A netvm has some hundred.
const maxList = 100_000

// Client is a connection to QubesDB. Its methods may be called at the same time by several goroutines. Every exchange
// ends within dialog.Timeout; one that fails for another reason than a refusal ends the connection.
type Client struct {
	socket string
	conn   *dialog.Conn[message]

	mu      sync.Mutex
	watches []watch
}

type watch struct {
	path string
	ring func()
}

// Open connects to the daemon's socket.
func Open(ctx context.Context, socket string) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, dialog.Timeout)
	defer cancel()
	stream, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("qubesdb: %w", err)
	}
	c := &Client{socket: socket}
	c.conn = dialog.New[message](stream, dialog.Protocol[message]{Read: decode, Event: c.event})
	return c, nil
}

// Done is closed when the connection has ended, by Close or by a failure; watches say nothing any more then.
func (c *Client) Done() <-chan struct{} { return c.conn.Done() }

// Err says why the connection has ended, nil as long as it has not.
func (c *Client) Err() error { return c.conn.Err() }

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Read returns the value of a path.
func (c *Client) Read(ctx context.Context, path string) (string, error) {
	var value string
	err := c.ask(ctx, "read", kindRead, path, func(m message) (bool, error) {
		if m.kind != kindValue || m.path != path {
			return false, unexpected(m)
		}
		value = string(m.data)
		return true, nil
	})
	return value, err
}

// List returns the paths that begin with the prefix, which need not end with a folder's name.
func (c *Client) List(ctx context.Context, prefix string) ([]string, error) {
	var paths []string
	err := c.ask(ctx, "list", kindList, prefix, func(m message) (bool, error) {
		switch {
		case m.kind == kindEntry && m.path == "":
			return true, nil
		case m.kind != kindEntry || !strings.HasPrefix(m.path, prefix):
			return false, unexpected(m)
		case len(paths) == maxList:
			return false, fmt.Errorf("more than %d entries", maxList)
		}
		paths = append(paths, m.path)
		return false, nil
	})
	return paths, err
}

// Watch returns a channel that has a token whenever one of the paths may have changed. It lasts as long as the
// connection, see Done.
func (c *Client) Watch(ctx context.Context, paths ...string) (<-chan struct{}, error) {
	for _, p := range paths {
		if err := checkPath(p); err != nil {
			return nil, fmt.Errorf("qubesdb: watch %.64q: %w", p, err)
		}
	}
	tokens, ring := dialog.Bell()
	c.mu.Lock()
	for _, p := range paths {
		c.watches = append(c.watches, watch{p, ring})
	}
	c.mu.Unlock()
	// Everything is watched: when a folder is removed, the daemon tells its path alone (db-core.c,
	// qubesdb_fire_watches), which a watch on an entry in it would not match.
	const everything = "/"
	return tokens, c.ask(ctx, "watch", kindWatch, everything, func(m message) (bool, error) {
		if m.kind != kindOK || m.path != everything {
			return false, unexpected(m)
		}
		return true, nil
	})
}

// event rings for the watches that a change concerns: the path itself, or a removed folder above it.
func (c *Client) event(m message) (bool, error) {
	if m.kind != kindChanged {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.watches {
		if m.path == w.path || strings.HasSuffix(m.path, "/") && strings.HasPrefix(w.path, m.path) {
			w.ring()
		}
	}
	return true, nil
}

// ask sends a request about a path; take gets the messages of its answer that are no refusal.
func (c *Client) ask(ctx context.Context, verb string, k kind, path string, take func(message) (bool, error)) error {
	err := checkPath(path)
	if err == nil {
		err = c.exchange(ctx, k, path, take)
	}
	if err != nil {
		return fmt.Errorf("qubesdb: %s %.64q: %w", verb, path, err)
	}
	return nil
}

func (c *Client) exchange(ctx context.Context, k kind, path string, take func(message) (bool, error)) error {
	var refused error
	err := c.conn.Ask(ctx, encode(k, path), func(m message) (bool, error) {
		switch {
		case m.kind == kindNoEntry && m.path == path:
			refused = ErrNoEntry
		case m.kind == kindError && m.path == path:
			refused = ErrRefused
		default:
			return take(m)
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", c.socket, err)
	}
	return refused
}

func unexpected(m message) error {
	return fmt.Errorf("an answer of type %d about %.64q, which nobody has asked for", m.kind, m.path)
}
