// Package notify listens, as a service manager does, to what a program tells of itself by sd_notify(3).
package notify

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
)

// datagram is more than a program sends at once: its lines are a few words each.
const datagram = 4096

// Listener is the socket that a program finds in NOTIFY_SOCKET.
type Listener struct {
	conn  *net.UnixConn
	ended chan struct{}

	mu     sync.Mutex
	values map[string]string
	said   map[string]chan struct{} // by key: closed when it is said for the first time
}

// Listen makes the socket, in the place of one that was left there.
func Listen(socket string) (*Listener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen for sd_notify: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen for sd_notify: %w", err)
	}
	l := &Listener{conn: conn, ended: make(chan struct{}), values: make(map[string]string), said: make(map[string]chan struct{})}
	go l.listen()
	return l, nil
}

// Ready is closed when the program has said READY=1; there is no other value.
func (l *Listener) Ready() <-chan struct{} { return l.Said("READY") }

// Said is closed when the program has said something about a key.
func (l *Listener) Said(key string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.saidOf(key)
}

// saidOf is Said for whoever holds the mutex.
func (l *Listener) saidOf(key string) chan struct{} {
	if l.said[key] == nil {
		l.said[key] = make(chan struct{})
	}
	return l.said[key]
}

// Value is what the program said last about a key, such as MAINPID; "" = nothing.
func (l *Listener) Value(key string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.values[key]
}

// listen reads one datagram after the other; each is lines of KEY=VALUE.
func (l *Listener) listen() {
	defer close(l.ended)
	buffer := make([]byte, datagram)
	for {
		length, err := l.conn.Read(buffer)
		if err != nil {
			return // closed
		}
		for _, line := range strings.Split(string(buffer[:length]), "\n") {
			key, value, _ := strings.Cut(line, "=")
			l.hear(key, value)
		}
	}
}

func (l *Listener) hear(key, value string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, before := l.values[key]; !before {
		close(l.saidOf(key))
	}
	l.values[key] = value
}

// Close ends the listening, if it ever began.
func (l *Listener) Close() {
	if l == nil {
		return
	}
	_ = l.conn.Close() // nothing was written to it
	<-l.ended
}
