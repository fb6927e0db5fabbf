// Package dialog asks one question at a time over a stream on which events may come at any moment, also in the middle
// of an answer. It is what the clients of XenStore and of QubesDB have in common: deadlines, and an end that nobody
// waits for in vain.
package dialog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Timeout is how long an answer may take. Both stores are local and answer within a millisecond.
const Timeout = 3 * time.Second

// ErrClosed is what a question gets after Close.
var ErrClosed = errors.New("the connection is closed")

// Stream is a socket, or a device that the runtime can wait for.
type Stream interface {
	io.ReadWriteCloser
	SetWriteDeadline(time.Time) error
}

// Protocol says what the messages of a stream are.
type Protocol[M any] struct {
	// Read reads one message. An error ends the connection.
	Read func(io.Reader) (M, error)
	// Event looks at every message first and returns true for one that is no part of an answer. An error ends the
	// connection.
	Event func(M) (bool, error)
}

// Conn is a connection. Its methods may be called at the same time by several goroutines.
type Conn[M any] struct {
	stream   Stream
	protocol Protocol[M]
	turn     chan struct{} // holds a token while somebody asks
	ended    chan struct{} // closed when nothing is read any more

	mu       sync.Mutex
	err      error        // why it ended; the first reason counts
	question *question[M] // the one that waits for its answer
}

// question is what takes the messages of an answer.
type question[M any] struct {
	take     func(M) (last bool, err error)
	answered chan struct{}
}

// New begins to read from the stream, which belongs to the connection from now on.
func New[M any](s Stream, p Protocol[M]) *Conn[M] {
	c := &Conn[M]{stream: s, protocol: p, turn: make(chan struct{}, 1), ended: make(chan struct{})}
	go c.listen()
	return c
}

// Done is closed when the connection has ended, by Close or by a failure.
func (c *Conn[M]) Done() <-chan struct{} { return c.ended }

// Err says why the connection has ended, nil as long as it has not.
func (c *Conn[M]) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and returns when nothing of it runs any more.
func (c *Conn[M]) Close() error {
	err := c.end(ErrClosed)
	<-c.ended
	return err
}

// Ask writes a request and hands the messages of its answer to take, until take says that one was the last; an error
// of take ends the connection. What take has written is the caller's when Ask has returned. An answer that does not
// come within Timeout or until ctx ends is an error that ends the connection, since it could still come and would
// then be taken for another one.
func (c *Conn[M]) Ask(ctx context.Context, request []byte, take func(M) (last bool, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return fmt.Errorf("wait for the answer to another question: %w", ctx.Err())
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	q := &question[M]{take: take, answered: make(chan struct{})}
	c.mu.Lock()
	c.question = q
	c.mu.Unlock()
	if err := c.write(ctx, request); err != nil {
		return c.endedBy(fmt.Errorf("write: %w", err))
	}
	select {
	case <-q.answered:
		return nil
	case <-c.ended:
	case <-ctx.Done():
		return c.endedBy(fmt.Errorf("no answer: %w", ctx.Err()))
	}
	select {
	case <-q.answered: // and the end came after it
		return nil
	default:
		return c.Err()
	}
}

// write sends a request in one go: the kernel's device takes parts too, but each is a system call.
func (c *Conn[M]) write(ctx context.Context, request []byte) error {
	if err := c.Err(); err != nil {
		return err
	}
	deadline, _ := ctx.Deadline() // Ask has set one
	if err := c.stream.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err := c.stream.Write(request)
	return err
}

// endedBy ends the connection for a reason, unless it has ended for another one, and returns the one that counts.
func (c *Conn[M]) endedBy(reason error) error {
	closing := c.end(reason)
	<-c.ended
	if err := c.Err(); !errors.Is(err, reason) {
		return err
	}
	return errors.Join(reason, closing)
}

func (c *Conn[M]) end(reason error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil
	}
	c.err = reason
	return c.stream.Close()
}

// listen reads until the end.
func (c *Conn[M]) listen() {
	defer close(c.ended)
	in := bufio.NewReader(c.stream)
	for {
		m, err := c.protocol.Read(in)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("the other side has closed the connection: %w", err)
		}
		if err == nil {
			err = c.hear(m)
		}
		if err != nil {
			// That closing fails too would say nothing new.
			_ = c.end(err)
			return
		}
	}
}

// hear finds who a message is for.
func (c *Conn[M]) hear(m M) error {
	if event, err := c.protocol.Event(m); event || err != nil {
		return err
	}
	c.mu.Lock()
	q := c.question
	c.mu.Unlock()
	if q == nil {
		return errors.New("an answer that nobody has asked for")
	}
	last, err := q.take(m)
	if err != nil || !last {
		return err
	}
	c.mu.Lock()
	c.question = nil
	c.mu.Unlock()
	close(q.answered)
	return nil
}

// Bell returns a channel that takes one token and a function that puts one there unless there is one. It stands for
// any number of events: what they are about is to be read again in whole.
func Bell() (tokens <-chan struct{}, ring func()) {
	bell := make(chan struct{}, 1)
	return bell, func() {
		select {
		case bell <- struct{}{}:
		default: // the last one was not received yet
		}
	}
}
