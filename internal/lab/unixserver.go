package lab

import (
	"errors"
	"net"
	"sync"
)

// UnixServer listens on a Unix socket and serves every connection in a goroutine of its own.
type UnixServer struct {
	listener net.Listener
	serving  sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

// ListenUnix starts a server. A connection lasts until serve returns.
func ListenUnix(socket string, serve func(net.Conn)) (*UnixServer, error) {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	s := &UnixServer{listener: listener, conns: map[net.Conn]bool{}}
	s.serving.Add(1)
	go func() {
		defer s.serving.Done()
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			s.begin(conn, serve)
		}
	}()
	return s, nil
}

func (s *UnixServer) begin(conn net.Conn, serve func(net.Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close() // nothing was written to it
		return
	}
	s.conns[conn] = true
	s.serving.Add(1)
	go func() {
		defer s.serving.Done()
		serve(conn)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, conn)
		_ = conn.Close() // Close may have done it
	}()
}

// Close cuts every client off and removes the socket.
func (s *UnixServer) Close() error {
	err := s.listener.Close()
	s.mu.Lock()
	s.closed = true
	for conn := range s.conns {
		if closing := conn.Close(); !errors.Is(closing, net.ErrClosed) {
			err = errors.Join(err, closing)
		}
	}
	s.mu.Unlock()
	s.serving.Wait()
	return err
}
