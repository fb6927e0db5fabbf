package lab

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
)

// The types of QubesDB's messages (qubesdb.h, enum qdb_msg).
const (
	qdbRead      = 0
	qdbWrite     = 1
	qdbMultiread = 2
	qdbList      = 3
	qdbRemove    = 4
	qdbWatch     = 5
	qdbUnwatch   = 6
	qdbOK        = 7
	qdbNoEntry   = 8
	qdbError     = 9
	qdbValue     = 10
	qdbValues    = 11
	qdbEntry     = 12
	qdbChanged   = 13

	qdbHeader = 72
	qdbPath   = 64
	qdbLength = 68   // where the header has the length of the data
	qdbData   = 3072 // the most that a message may carry, in bytes
)

// QubesDB is a small QubesDB daemon: the protocol over a Unix socket and a store in memory. The real one cannot run
// here: it needs Xen's vchan to dom0. What it does was read in its source (qubesdb.h, db-cmds.c and db-core.c).
type QubesDB struct {
	*UnixServer

	mu      sync.Mutex
	values  map[string]string
	clients map[*qdbClient]bool
}

// qdbClient is one connection. All of it is guarded by the store's mutex.
type qdbClient struct {
	conn    net.Conn
	watches []string
}

// StartQubesDB starts an empty store on a socket. Close ends it and cuts its clients off.
func StartQubesDB(socket string) (*QubesDB, error) {
	q := &QubesDB{values: map[string]string{}, clients: map[*qdbClient]bool{}}
	var err error
	q.UnixServer, err = ListenUnix(socket, q.serve)
	if err != nil {
		return nil, err
	}
	return q, nil
}

// Set writes a value, as dom0 would.
func (q *QubesDB) Set(path, value string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.values[path] = value
	q.changed(path)
}

// Delete removes a path; one that ends with / is a folder, and goes with all in it.
func (q *QubesDB) Delete(path string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.remove(path)
}

// serve answers one client until it goes.
func (q *QubesDB) serve(conn net.Conn) {
	c := &qdbClient{conn: conn}
	q.mu.Lock()
	q.clients[c] = true
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		delete(q.clients, c)
	}()
	for {
		var header [qdbHeader]byte
		if _, err := io.ReadFull(c.conn, header[:]); err != nil {
			return
		}
		path, _, _ := bytes.Cut(header[1:1+qdbPath-1], []byte{0}) // the last byte counts as a NUL
		data := make([]byte, min(binary.LittleEndian.Uint32(header[qdbLength:]), qdbData))
		if _, err := io.ReadFull(c.conn, data); err != nil {
			return
		}
		q.answer(c, header[0], string(path), string(data))
	}
}

// answer does what a request asks for.
func (q *QubesDB) answer(c *qdbClient, kind byte, path, data string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	value, exists := q.values[path]
	switch {
	case !qdbAllows(path):
		c.send(qdbError, path, "")
	case kind == qdbRead && exists:
		c.send(qdbValue, path, value)
	case kind == qdbWrite && strings.HasPrefix(path, "/") && !strings.HasSuffix(path, "/"):
		q.values[path] = data
		c.send(qdbOK, path, "")
		q.changed(path)
	case kind == qdbList || kind == qdbMultiread:
		q.list(c, kind, path)
	case kind == qdbRemove && q.remove(path):
		c.send(qdbOK, path, "")
	case kind == qdbWatch:
		c.watches = append(c.watches, path)
		c.send(qdbOK, path, "")
	case kind == qdbUnwatch && slices.Contains(c.watches, path):
		at := slices.Index(c.watches, path)
		c.watches = slices.Delete(c.watches, at, at+1)
		c.send(qdbOK, path, "")
	case kind == qdbRead || kind == qdbRemove || kind == qdbUnwatch:
		c.send(qdbNoEntry, path, "")
	default:
		c.send(qdbError, path, "")
	}
}

// list sends the entries whose paths begin with the prefix, and an empty one to end them.
func (q *QubesDB) list(c *qdbClient, kind byte, prefix string) {
	var paths []string
	for p := range q.values {
		if strings.HasPrefix(p, prefix) {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	for _, p := range paths {
		if kind == qdbMultiread {
			c.send(qdbValues, p, q.values[p])
		} else {
			c.send(qdbEntry, p, "")
		}
	}
	if kind == qdbMultiread {
		c.send(qdbValues, "", "")
	} else {
		c.send(qdbEntry, "", "")
	}
}

// remove deletes an entry or a folder, and tells the path that it was given: not those of a folder's entries.
func (q *QubesDB) remove(path string) bool {
	removed := false
	for p := range q.values {
		if p == path || strings.HasSuffix(path, "/") && strings.HasPrefix(p, path) {
			delete(q.values, p)
			removed = true
		}
	}
	if removed {
		q.changed(path)
	}
	return removed
}

// changed tells the clients that watch the path, or a folder above it.
func (q *QubesDB) changed(path string) {
	for c := range q.clients {
		for _, w := range c.watches {
			if w == path || strings.HasSuffix(w, "/") && strings.HasPrefix(path, w) {
				c.send(qdbChanged, path, "")
			}
		}
	}
}

// qdbAllows tells whether a path has only characters that the daemon allows.
func qdbAllows(path string) bool {
	for _, r := range path {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("_-/.:@", r):
		default:
			return false
		}
	}
	return true
}

// send writes a message. What the real daemon leaves unset in its header is not zero here either. A client that is
// gone is noticed by whoever reads from it.
func (c *qdbClient) send(kind byte, path, data string) {
	m := bytes.Repeat([]byte{0xa5}, qdbHeader)
	m[0] = kind
	copy(m[1:], path+"\x00")
	binary.LittleEndian.PutUint32(m[qdbLength:], uint32(len(data)))
	_, _ = c.conn.Write(append(m, data...))
}
