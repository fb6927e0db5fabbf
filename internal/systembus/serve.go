package systembus

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

const (
	// maxCall is the longest call that is looked at, in bytes. The longest honest one has a few hundred.
	maxCall = 64 << 10
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

// Service is a connection that takes calls.
type Service struct {
	*godbus.Conn
	sieve *sieve
}

// Serve opens a connection like Connect's that heeds the bus alone, and hands over each call that comes in, one after the
// other: take must not wait for an answer of the bus. tooLong says that the call's arguments were thrown away because of
// their size.
func Serve(ctx context.Context, take func(s *Service, c *Call, tooLong bool)) (*Service, error) {
	s := &Service{}
	s.sieve = &sieve{take: func(c *Call, tooLong bool) { take(s, c, tooLong) }} // a call may come before open returns
	var err error
	s.Conn, err = open(ctx, s.sieve)
	return s, err
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

// sieve stands between the socket and godbus. What strangers send does not reach godbus: that would start a goroutine for
// each call, build values of whatever the arguments claim to be, keep every signal until it is received, and close the
// connection for some messages that the bus lets pass (a dictionary with a boolean key is enough). Instead, calls are handed
// over as they were on the wire, and one that is longer than any honest one is thrown away as it comes; of signals, only
// those of the bus and of whom we heed are let through.
type sieve struct {
	net.Conn
	in     *bufio.Reader
	serial serials
	heed   func(sender string) bool    // beside the bus; nil = nobody
	take   func(c *Call, tooLong bool) // nil = there is nothing to call

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
	s.message = s.message[:0]
	if cap(s.message) > maxCall { // of an answer that was longer; it is not needed any more
		s.message = nil
	}
	if err := s.readUpTo(min(h.all, maxCall)); err != nil {
		return err
	}
	call, ok := parseCall(h, s.message)
	if ok && s.wants(h, call) {
		err := s.readUpTo(h.all)
		s.rest = s.message
		return err
	}
	missing := int64(h.all - len(s.message))
	if _, err := io.CopyN(io.Discard, s.in, missing); err != nil {
		return err
	}
	// Without a header that can be read, we could not say to whom an answer goes.
	if ok && h.kind == godbus.TypeMethodCall && s.take != nil {
		s.take(call, missing > 0)
	}
	return nil
}

// readUpTo reads the message until it has so many bytes.
func (s *sieve) readUpTo(size int) error {
	had := len(s.message)
	s.message = slices.Grow(s.message, size-had)[:size]
	_, err := io.ReadFull(s.in, s.message[had:])
	return err
}

// wants tells whether a message is for godbus: an answer, which the bus only lets pass to whoever asked, or a signal of
// somebody whom we heed. Unknown types are to be ignored (D-Bus specification, "Message Format").
func (s *sieve) wants(h header, m *Call) bool {
	switch h.kind {
	case godbus.TypeMethodReply, godbus.TypeError:
		return true
	case godbus.TypeSignal:
		return m.Sender == busName || s.heed != nil && m.Sender != "" && s.heed(m.Sender)
	}
	return false
}

// Write sends what godbus has to say, which is one message each time.
func (s *sieve) Write(p []byte) (int, error) {
	if !s.begun {
		s.begun = bytes.Equal(p, handshakeEnd)
		return s.Conn.Write(p)
	}
	if err := s.send(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// send sends one message, which may be in parts.
func (s *sieve) send(parts ...[]byte) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	err := s.SetWriteDeadline(time.Now().Add(sendTimeout))
	if err == nil {
		message := net.Buffers(parts)
		_, err = message.WriteTo(s.Conn)
	}
	if err != nil { // half a message may be on its way: nothing can follow it
		return errors.Join(fmt.Errorf("send to the bus: %w", err), s.Close())
	}
	return nil
}

// answer sends an answer, unless the caller wants none.
func (s *sieve) answer(c *Call, errorName string, body Body) error {
	if c.Flags&godbus.FlagNoReplyExpected != 0 {
		return nil
	}
	if err := s.send(c.answer(s.serial.GetSerial(), errorName, body), body.bytes); err != nil {
		return fmt.Errorf("answer %s: %w", c, err)
	}
	return nil
}
