package dbus

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
)

// rawCaller speaks the protocol itself, and so can send what no library would.
type rawCaller struct {
	t      testing.TB
	socket net.Conn
	in     *bufio.Reader
	serial uint32
}

func newRawCaller(t testing.TB) *rawCaller {
	t.Helper()
	socket, err := net.Dial("unix", strings.TrimPrefix(os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), "unix:path="))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	r := &rawCaller{t: t, socket: socket, in: bufio.NewReader(socket)}
	r.write([]byte("\x00AUTH EXTERNAL " + hex.EncodeToString([]byte(strconv.Itoa(os.Getuid()))) + "\r\n"))
	if line, err := r.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "OK ") {
		t.Fatalf("authentication: %q %v", line, err)
	}
	r.write([]byte("BEGIN\r\n"))
	r.call(busName, "/org/freedesktop/DBus", busName, "Hello", 0, "", nil)
	r.answer()
	return r
}

func (r *rawCaller) write(b []byte) {
	r.t.Helper()
	if _, err := r.socket.Write(b); err != nil {
		r.t.Fatalf("the bus has thrown the caller out: %v", err)
	}
}

// call sends a method call with a body as it is on the wire.
func (r *rawCaller) call(to, path, iface, member string, flags byte, signature string, body []byte) {
	r.t.Helper()
	if err := r.try(godbus.TypeMethodCall, to, path, iface, member, flags, signature, body); err != nil {
		r.t.Fatalf("the bus has thrown the caller out: %v", err)
	}
}

func (r *rawCaller) try(kind godbus.Type, to, path, iface, member string, flags byte, signature string, body []byte) error {
	r.serial++
	le := binary.LittleEndian
	m := []byte{'l', byte(kind), flags, 1}
	m = le.AppendUint32(m, uint32(len(body)))
	m = le.AppendUint32(m, r.serial)
	m = append(m, 0, 0, 0, 0)
	for _, f := range []struct {
		code        byte
		kind, value string
	}{{1, "o", path}, {2, "s", iface}, {3, "s", member}, {6, "s", to}} {
		m = append(align(m), f.code, 1, f.kind[0], 0)
		m = append(append(le.AppendUint32(m, uint32(len(f.value))), f.value...), 0)
	}
	if signature != "" {
		m = append(append(append(align(m), 8, 1, 'g', 0, byte(len(signature))), signature...), 0)
	}
	le.PutUint32(m[12:], uint32(len(m)-16))
	_, err := r.socket.Write(append(align(m), body...))
	return err
}

func (r *rawCaller) ours(member, signature string, body []byte) {
	r.t.Helper()
	r.call(Name, string(Path), Interface, member, 0, signature, body)
}

func align(m []byte) []byte { return append(m, make([]byte, (8-len(m)%8)%8)...) }

// answer reads the next answer: an error's name and sentence, or "".
func (r *rawCaller) answer() (name, sentence string) {
	r.t.Helper()
	for {
		m, err := godbus.DecodeMessage(r.in)
		if err != nil {
			r.t.Fatal(err)
		}
		switch m.Type {
		case godbus.TypeError:
			name, _ = m.Headers[godbus.FieldErrorName].Value().(string)
			return name, fmt.Sprint(m.Body...)
		case godbus.TypeMethodReply:
			return "", ""
		}
	}
}

// nested is the body of variants in each other, the innermost of which has a value of the signature.
func nested(depth int, signature string, value []byte) []byte {
	var b []byte
	for range depth - 1 {
		b = append(b, 1, 'v', 0)
	}
	b = append(append(append(b, byte(len(signature))), signature...), 0)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return append(b, value...)
}

// skip reads the next message, and does not look at it.
func (r *rawCaller) skip() {
	r.t.Helper()
	h, err := r.in.Peek(16)
	if err != nil {
		r.t.Fatal(err)
	}
	body, fields := binary.LittleEndian.Uint32(h[4:]), binary.LittleEndian.Uint32(h[12:])
	if _, err := r.in.Discard(16 + (int(fields)+7)&^7 + int(body)); err != nil {
		r.t.Fatal(err)
	}
}
