package systembus

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// wire is a socket that gives what a test says, and keeps what is sent.
type wire struct {
	net.Conn // nil: nothing else is called
	in       io.Reader
	out      bytes.Buffer
}

func (w *wire) Read(p []byte) (int, error)       { return w.in.Read(p) }
func (w *wire) Write(p []byte) (int, error)      { return w.out.Write(p) }
func (w *wire) Close() error                     { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// newSieve reads messages after the handshake; the calls that it hands over are told.
func newSieve(messages ...[]byte) (*sieve, *wire, *[]string) {
	w := &wire{in: bytes.NewReader(bytes.Join(messages, nil))}
	var taken []string
	s := &sieve{Conn: w, in: bufio.NewReaderSize(w, readAhead), begun: true}
	s.take = func(c *Call, tooLong bool) {
		what := c.Member + " from " + c.Sender
		if tooLong {
			what += ", too long"
		}
		taken = append(taken, what)
	}
	return s, w, &taken
}

func signalFrom(sender string) *godbus.Message {
	return &godbus.Message{Type: godbus.TypeSignal, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldPath:      godbus.MakeVariant(godbus.ObjectPath("/org/freedesktop/DBus")),
		godbus.FieldInterface: godbus.MakeVariant(busName), godbus.FieldMember: godbus.MakeVariant("NameOwnerChanged"),
		godbus.FieldSender: godbus.MakeVariant(sender),
	}}
}

func replyOf(size int) *godbus.Message {
	body := make([]byte, size)
	return &godbus.Message{Type: godbus.TypeMethodReply, Body: []any{body}, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldReplySerial: godbus.MakeVariant(uint32(1)), godbus.FieldSignature: godbus.MakeVariant(godbus.SignatureOf(body)),
	}}
}

func TestOnlyTheBusAndOurOwnAnswersReachGodbus(t *testing.T) {
	le := binary.LittleEndian
	call, giant := encoded(t, le, callMessage()), encoded(t, le, callMessage(make([]byte, 1<<20)))
	long := callMessage()
	long.Headers[godbus.FieldPath] = godbus.MakeVariant(godbus.ObjectPath("/" + string(bytes.Repeat([]byte("x"), maxCall))))
	unknownType := bytes.Clone(call)
	unknownType[1] = 9
	s, _, taken := newSieve(
		call, encoded(t, le, signalFrom(":1.66")), giant, encoded(t, le, long), unknownType, encoded(t, le, replyOf(maxCall)),
		encoded(t, le, signalFrom("")), encoded(t, le, signalFrom(busName)), encoded(t, binary.BigEndian, replyOf(1000)),
		encoded(t, le, signalFrom(":1.7")), call,
	)
	s.heed = func(sender string) bool { return sender == ":1.7" }
	for i, want := range []struct {
		kind godbus.Type
		size int
	}{{godbus.TypeMethodReply, maxCall}, {godbus.TypeSignal, 0}, {godbus.TypeMethodReply, 1000}, {godbus.TypeSignal, 0}} {
		m, err := godbus.DecodeMessage(s)
		if err != nil || m.Type != want.kind || want.size > 0 && len(m.Body[0].([]byte)) != want.size {
			t.Fatalf("%d: got %v, %v, want %v", i, m, err, want)
		}
	}
	if m, err := godbus.DecodeMessage(s); !errors.Is(err, io.EOF) {
		t.Errorf("then came %v, %v", m, err)
	}
	const from = "SetDnsOverride from :1.42"
	if want := []string{from, from + ", too long", from}; !slices.Equal(*taken, want) {
		t.Errorf("taken are %q, want %q", *taken, want)
	}
	if cap(s.message) > maxCall {
		t.Errorf("%d bytes are kept", cap(s.message))
	}
}

func TestWhatIsNoMessageEndsTheConnection(t *testing.T) {
	for what, b := range map[string][]byte{
		"another byte order":       append([]byte("x"), make([]byte, 15)...),
		"longer than any":          {'l', 1, 0, 1, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
		"shorter than it says":     {'l', 1, 0, 1, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2},
		"a header cut in its half": {'l', 1, 0, 1},
	} {
		s, _, taken := newSieve(b)
		if _, err := s.Read(make([]byte, 1)); err == nil || len(*taken) > 0 {
			t.Errorf("%s: %v, taken %q", what, err, *taken)
		}
	}
}

func TestACallThatWantsNoAnswerGetsNone(t *testing.T) {
	s, w, _ := newSieve()
	for _, name := range []string{"", "org.qubes_os.NetVM1.Error.Failed"} {
		if err := s.answer(&Call{Sender: ":1.42", Flags: godbus.FlagNoReplyExpected}, name, Body{}); err != nil || w.out.Len() > 0 {
			t.Errorf("sent %q, %v", w.out.Bytes(), err)
		}
		if err := s.answer(&Call{Sender: ":1.42"}, name, Body{}); err != nil || w.out.Len() == 0 {
			t.Errorf("sent nothing, %v", err)
		}
		w.out.Reset()
	}
}

// BenchmarkGiantMessage is what a call of 32 MiB costs, the longest that a system bus forwards.
func BenchmarkGiantMessage(b *testing.B) {
	giant := encoded(b, binary.LittleEndian, callMessage(make([]byte, 32<<20)))
	b.SetBytes(int64(len(giant)))
	b.ReportAllocs()
	s, w, _ := newSieve()
	s.take = func(_ *Call, tooLong bool) {
		if !tooLong {
			b.Error("not too long")
		}
	}
	b.ResetTimer()
	for range b.N {
		w.in = bytes.NewReader(giant)
		s.in.Reset(w)
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
	}
}
