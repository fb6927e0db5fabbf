package lab

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"path"
	"slices"
	"strings"
	"sync"
)

// The types of xenstored's messages (xen/include/public/io/xs_wire.h).
const (
	xsDirectory     = 1
	xsRead          = 2
	xsWatch         = 4
	xsUnwatch       = 5
	xsGetDomainPath = 10
	xsWrite         = 11
	xsMkdir         = 12
	xsRemove        = 13
	xsWatchEvent    = 15
	xsError         = 16

	xsHeader  = 16
	xsPayload = 4096 // the most that a message may carry, in bytes
)

// xsHome is the folder of the only domain there is, dom0: relative paths start in it.
const xsHome = "/local/domain/0"

// XenStore is a small xenstored: the protocol over a Unix socket and a store in memory, for tests where there is no
// Xen. Every client is dom0 and may do everything, unless Refuse says otherwise; there are no transactions.
type XenStore struct {
	*UnixServer

	mu      sync.Mutex
	values  map[string]string // by absolute path, the folders included
	refused map[string]string // by absolute path: the error that a client gets
	clients map[*xsClient]bool
}

// xsClient is one connection. All of it is guarded by the store's mutex.
type xsClient struct {
	conn    net.Conn
	watches []xsWatchpoint
}

type xsWatchpoint struct {
	path     string // absolute
	relative bool   // and so are the paths of its events
	token    string
}

// StartXenStore starts an empty store on a socket. Close ends it and cuts its clients off.
func StartXenStore(socket string) (*XenStore, error) {
	x := &XenStore{
		values:  map[string]string{"/": "", "/local": "", "/local/domain": "", xsHome: ""},
		refused: map[string]string{},
		clients: map[*xsClient]bool{},
	}
	var err error
	x.UnixServer, err = ListenUnix(socket, x.serve)
	if err != nil {
		return nil, err
	}
	return x, nil
}

// Get returns the value of a path, relative ones in the own domain's folder; false = there is none.
func (x *XenStore) Get(p string) (string, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	value, ok := x.values[xsAbsolute(p)]
	return value, ok
}

// Set writes a value, as the toolstack would.
func (x *XenStore) Set(p, value string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.set(xsAbsolute(p), value)
}

// Delete removes a path and all below it.
func (x *XenStore) Delete(p string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(xsAbsolute(p))
}

// Refuse has clients get an error, such as EACCES, for everything that they ask of a path; "" ends that.
func (x *XenStore) Refuse(p, word string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.refused[xsAbsolute(p)] = word
}

func xsAbsolute(p string) string {
	if !strings.HasPrefix(p, "/") {
		p = xsHome + "/" + p
	}
	return p
}

// serve answers one client until it goes.
func (x *XenStore) serve(conn net.Conn) {
	c := &xsClient{conn: conn}
	x.mu.Lock()
	x.clients[c] = true
	x.mu.Unlock()
	defer func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.clients, c)
	}()
	for {
		var header [xsHeader]byte
		if _, err := io.ReadFull(c.conn, header[:]); err != nil {
			return
		}
		length := binary.LittleEndian.Uint32(header[12:])
		if length > xsPayload {
			return // as xenstored does
		}
		payload := make([]byte, length)
		if _, err := io.ReadFull(c.conn, payload); err != nil {
			return
		}
		x.answer(c, header, payload)
	}
}

// answer does what a request asks for. A watch is answered before its first event, as by xenstored.
func (x *XenStore) answer(c *xsClient, header [xsHeader]byte, payload []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	kind := binary.LittleEndian.Uint32(header[0:])
	reply, word := x.act(c, kind, payload)
	if word != "" {
		kind, reply = xsError, []byte(word+"\x00")
	}
	c.send(kind, header[4:12], reply)
	if kind == xsWatch {
		w := c.watches[len(c.watches)-1]
		c.notify(w, w.path)
	}
}

// act carries a request out; the word is why not.
func (x *XenStore) act(c *xsClient, kind uint32, payload []byte) (reply []byte, word string) {
	ok := []byte("OK\x00")
	name, rest, found := bytes.Cut(payload, []byte{0})
	if !found {
		return nil, "EINVAL"
	}
	p := xsAbsolute(string(name))
	if kind == xsGetDomainPath {
		return []byte("/local/domain/" + string(name) + "\x00"), ""
	}
	if word := x.objection(p); word != "" {
		return nil, word
	}
	value, exists := x.values[p]
	_, hasParent := x.values[path.Dir(p)]
	switch {
	case kind == xsWrite:
		x.set(p, string(rest))
		return ok, ""
	case kind == xsMkdir && exists:
		return ok, ""
	case kind == xsMkdir:
		x.set(p, "")
		return ok, ""
	case kind == xsWatch || kind == xsUnwatch:
		return ok, c.watch(kind, p, !strings.HasPrefix(string(name), "/"), rest)
	case kind == xsRemove && (exists || hasParent):
		x.remove(p)
		return ok, ""
	case !exists:
		return nil, "ENOENT"
	case kind == xsRead:
		return []byte(value), ""
	case kind == xsDirectory:
		return x.list(p), ""
	}
	return nil, "ENOSYS"
}

// objection says what is wrong with a path, "" if nothing is.
func (x *XenStore) objection(p string) string {
	valid := p == "/" || !strings.HasSuffix(p, "/") && !strings.Contains(p, "//")
	for _, r := range p {
		valid = valid && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-/_@", r))
	}
	if !valid {
		return "EINVAL"
	}
	return x.refused[p]
}

// set writes a value and makes the folders on the way.
func (x *XenStore) set(p, value string) {
	for dir := path.Dir(p); ; dir = path.Dir(dir) {
		if _, exists := x.values[dir]; exists {
			break
		}
		x.values[dir] = ""
	}
	x.values[p] = value
	x.changed(p)
}

// remove deletes a path and all below it, each with an event of its own.
func (x *XenStore) remove(p string) {
	for name := range x.values {
		if name == p || strings.HasPrefix(name, p+"/") {
			delete(x.values, name)
			x.changed(name)
		}
	}
}

// list returns the names in a folder, sorted, each with its NUL.
func (x *XenStore) list(p string) (names []byte) {
	var found []string
	for name := range x.values {
		if name != "/" && path.Dir(name) == p {
			found = append(found, path.Base(name)+"\x00")
		}
	}
	slices.Sort(found)
	return []byte(strings.Join(found, ""))
}

func (c *xsClient) watch(kind uint32, p string, relative bool, rest []byte) (word string) {
	token, ended := bytes.CutSuffix(rest, []byte{0})
	if !ended {
		return "EINVAL"
	}
	w := xsWatchpoint{path: p, relative: relative, token: string(token)}
	at := slices.Index(c.watches, w)
	switch {
	case kind == xsWatch && at >= 0:
		return "EEXIST"
	case kind == xsWatch:
		c.watches = append(c.watches, w)
	case at < 0:
		return "ENOENT"
	default:
		c.watches = slices.Delete(c.watches, at, at+1)
	}
	return ""
}

// changed tells every client that watches the path or a folder above it.
func (x *XenStore) changed(p string) {
	for c := range x.clients {
		for _, w := range c.watches {
			if w.path == p || w.path == "/" || strings.HasPrefix(p, w.path+"/") {
				c.notify(w, p)
			}
		}
	}
}

func (c *xsClient) notify(w xsWatchpoint, p string) {
	if w.relative {
		p = strings.TrimPrefix(p, xsHome+"/")
	}
	c.send(xsWatchEvent, make([]byte, 8), []byte(p+"\x00"+w.token+"\x00"))
}

// send writes a message; numbers are those of the request and its transaction. A client that is gone is noticed by
// whoever reads from it.
func (c *xsClient) send(kind uint32, numbers, payload []byte) {
	m := binary.LittleEndian.AppendUint32(nil, kind)
	m = append(m, numbers...)
	m = binary.LittleEndian.AppendUint32(m, uint32(len(payload)))
	_, _ = c.conn.Write(append(m, payload...))
}
