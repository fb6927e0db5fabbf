package systembus

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

const (
	// maxMessage is the longest message that is looked at, in bytes. The longest honest call has a few hundred; an answer
	// of the bus lists the groups of a process, of which there may be thousands.
	maxMessage = 64 << 10
	// readAhead is the buffer between the socket and us, in bytes.
	readAhead = 4 << 10
	// sendTimeout bounds sending one message. A bus stops reading from us when callers do not read what it keeps for them
	// (dbus-daemon(1), max_incoming_bytes); a new connection is not held to their account.
	sendTimeout = 30 * time.Second
)

// busName is the bus's own name, D-Bus specification, "Message Bus Names".
const busName = "org.freedesktop.DBus"

// handshakeEnd is our last line before messages begin, D-Bus specification, "Authentication Protocol".
var handshakeEnd = []byte("BEGIN\r\n")

// Service is a connection that takes calls. What strangers send does not reach godbus: that would start a goroutine for
// each call, build values of whatever the arguments claim to be, and close the connection for some that the bus lets pass
// (a dictionary with a boolean key is enough). Instead, calls are handed over as they were on the wire; a message that is
// longer than any honest one is thrown away as it comes; and of signals only the bus's own are let through. Calls of our
// own, their answers, and our signals go through godbus.
type Service struct {
	*godbus.Conn
	sieve *sieve
}

// Serve opens a connection like Connect's, and hands over each call that comes in, one after the other: take must not
// wait for an answer of the bus. tooLong says that the call's arguments were thrown away because of their size.
func Serve(ctx context.Context, take func(s *Service, c *Call, tooLong bool)) (*Service, error) {
	socket, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	s := &Service{}
	s.sieve = &sieve{Conn: socket, in: bufio.NewReaderSize(socket, readAhead), serial: &serials{},
		take: func(c *Call, tooLong bool) { take(s, c, tooLong) }}
	s.Conn, err = begin(ctx, socket, s.sieve, s.sieve.serial)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Answer sends the result of a call.
func (s *Service) Answer(c *Call, result Body) error { return s.sieve.answer(c, "", result) }

// Refuse sends an error with a sentence for people.
func (s *Service) Refuse(c *Call, name, sentence string) error {
	body, err := Encode(sentence)
	if err != nil {
		return err
	}
	return s.sieve.answer(c, name, body)
}

// sieve stands between the socket and godbus.
type sieve struct {
	net.Conn
	in     *bufio.Reader
	serial *serials
	take   func(c *Call, tooLong bool)

	begun   bool   // the handshake is over; set before godbus starts to read messages
	message []byte // the last one that was read; used again
	rest    []byte // what godbus has not read of it yet

	sending sync.Mutex
}

// Read gives godbus the messages that are for it.
func (s *sieve) Read(p []byte) (int, error) {
	if !s.begun {
		return s.in.Read(p)
	}
	for len(s.rest) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// next reads one message, and keeps it for godbus or deals with it.
func (s *sieve) next() error {
	fixed, err := s.in.Peek(fixedHeader)
	if err != nil {
		return err
	}
	h, err := parseFixed(fixed)
	if err != nil {
		return err
	}
	kept := min(h.all, maxMessage)
	if cap(s.message) < kept {
		s.message = make([]byte, kept)
	}
	s.message = s.message[:kept]
	if _, err := io.ReadFull(s.in, s.message); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, s.in, int64(h.all-kept)); err != nil {
		return err
	}
	s.sort(h)
	return nil
}

// sort decides about the message that was read.
func (s *sieve) sort(h header) {
	tooLong := h.all > len(s.message)
	call, ok := parseCall(h, s.message)
	switch {
	case !ok: // nobody honest; and we could not say to whom an answer goes
	case h.kind == godbus.TypeMethodCall:
		s.take(call, tooLong)
	case tooLong: // whoever waits for it has a deadline
	case h.kind == godbus.TypeSignal && call.Sender != busName:
	case h.kind == godbus.TypeSignal, h.kind == godbus.TypeMethodReply, h.kind == godbus.TypeError:
		s.rest = s.message
	}
}

// Write sends what godbus has to say, which is one message each time.
func (s *sieve) Write(p []byte) (int, error) {
	if !s.begun {
		s.begun = bytes.Equal(p, handshakeEnd)
		return s.Conn.Write(p)
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	if err := s.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return 0, err
	}
	n, err := s.Conn.Write(p)
	if err != nil { // half a message is on its way: nothing can follow it
		err = errors.Join(err, s.Close())
	}
	return n, err
}

// answer sends an answer, unless the caller wants none.
func (s *sieve) answer(c *Call, errorName string, body Body) error {
	if c.Flags&godbus.FlagNoReplyExpected != 0 {
		return nil
	}
	if _, err := s.Write(c.answer(s.serial.GetSerial(), errorName, body)); err != nil {
		return fmt.Errorf("answer %s: %w", c, err)
	}
	return nil
}
