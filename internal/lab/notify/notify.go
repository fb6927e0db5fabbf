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
	ready chan struct{} // closed at the first READY=1
	ended chan struct{}

	mu   sync.Mutex
	said map[string]string
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
	l := &Listener{conn: conn, ready: make(chan struct{}), ended: make(chan struct{}), said: make(map[string]string)}
	go l.listen()
	return l, nil
}

// Ready is closed when the program has said READY=1.
func (l *Listener) Ready() <-chan struct{} { return l.ready }

// Value is what the program said last about a key, such as MAINPID; "" = nothing.
func (l *Listener) Value(key string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said[key]
}

// listen reads one datagram after the other; each is lines of KEY=VALUE.
func (l *Listener) listen() {
	defer close(l.ended)
	once := sync.OnceFunc(func() { close(l.ready) })
	buffer := make([]byte, datagram)
	for {
		length, err := l.conn.Read(buffer)
		if err != nil {
			return // closed
		}
		for _, line := range strings.Split(string(buffer[:length]), "\n") {
			key, value, _ := strings.Cut(line, "=")
			l.mu.Lock()
			l.said[key] = value
			l.mu.Unlock()
			if line == "READY=1" {
				once()
			}
		}
	}
}

// Close ends the listening, if it ever began.
func (l *Listener) Close() {
	if l == nil {
		return
	}
	_ = l.conn.Close() // nothing was written to it
	<-l.ended
}
