package systembus

import (
	"bytes"
	"encoding/binary"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
)

// encoded is a message as godbus writes it.
func encoded(t testing.TB, order binary.ByteOrder, m *godbus.Message) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := m.EncodeTo(&out, order); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// callMessage is a call as a library makes it, from :1.42.
func callMessage(args ...any) *godbus.Message {
	m := &godbus.Message{Type: godbus.TypeMethodCall, Body: args, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant("org.qubes_os.NetVM1"),
		godbus.FieldPath:        godbus.MakeVariant(godbus.ObjectPath("/org/qubes_os/NetVM1")),
		godbus.FieldInterface:   godbus.MakeVariant("org.qubes_os.NetVM1"),
		godbus.FieldMember:      godbus.MakeVariant("SetDnsOverride"),
		godbus.FieldSender:      godbus.MakeVariant(":1.42"),
	}}
	if len(args) > 0 {
		m.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(args...))
	}
	return m
}

func TestACallIsReadAsItWasWritten(t *testing.T) {
	servers := []string{"192.0.2.1", "", "2001:db8::1"}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		b := encoded(t, order, callMessage("text", servers, true))
		h, err := parseFixed(b)
		if err != nil {
			t.Fatal(err)
		}
		c, ok := parseCall(h, b)
		if !ok || h.kind != godbus.TypeMethodCall || h.all != len(b) {
			t.Fatalf("%s: %+v %+v %t", order, h, c, ok)
		}
		got := []any{c.Sender, c.Path, c.Interface, c.Member, c.Signature, c.Args.Text(), c.Args.Texts(3), c.Args.Bool(), c.Args.Bad()}
		want := []any{":1.42", "/org/qubes_os/NetVM1", "org.qubes_os.NetVM1", "SetDnsOverride", "sasb", "text", servers, true, false}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", order, diff)
		}
	}
}

func TestArgumentsThatAreNoneAreBad(t *testing.T) {
	for what, read := range map[string]func(a *Args){
		"more than are there": func(a *Args) { a.Texts(3); a.Text(); a.Text() },
		"more than asked for": func(a *Args) { a.Texts(2) },
		"a text as a bool":    func(a *Args) { a.Bool() },
		"a list as a text":    func(a *Args) { a.Text(); a.Text(); a.Text(); a.Text(); a.Text() },
	} {
		b := encoded(t, binary.LittleEndian, callMessage([]string{"a", "b", "c"}))
		h, err := parseFixed(b)
		if err != nil {
			t.Fatal(err)
		}
		c, _ := parseCall(h, b)
		if read(&c.Args); !c.Args.Bad() {
			t.Errorf("%s: not bad", what)
		}
	}
}

// What we answer is what godbus reads, with the values that were given.
func TestAnAnswerIsReadAsItWasWritten(t *testing.T) {
	c := &Call{Sender: ":1.42", serial: 7}
	for _, values := range [][]any{{}, {true}, {"a sentence"}, {map[string]godbus.Variant{"x": godbus.MakeVariant(uint64(1))}}, {[]string{"a", "bc"}}} {
		body, err := Encode(values...)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"", "org.qubes_os.NetVM1.Error.Failed"} {
			m, err := godbus.DecodeMessage(bytes.NewReader(append(c.answer(9, name, body), body.bytes...)))
			if err != nil {
				t.Fatalf("%v: %v", values, err)
			}
			gotName, _ := m.Headers[godbus.FieldErrorName].Value().(string)
			got := []any{m.Type == godbus.TypeError, gotName, m.Serial(), m.Headers[godbus.FieldReplySerial].Value(), m.Headers[godbus.FieldDestination].Value()}
			want := []any{name != "", name, uint32(9), uint32(7), ":1.42"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%v: (-want +got):\n%s", values, diff)
			}
			if len(values) != len(m.Body) || len(values) > 0 && !cmp.Equal(values[0], m.Body[0], cmp.AllowUnexported(godbus.Variant{}, godbus.Signature{})) {
				t.Errorf("%v became %v", values, m.Body)
			}
		}
	}
}

// No message ends the program, and what is read of one that godbus can read is the same.
func FuzzCall(f *testing.F) {
	f.Add(encoded(f, binary.LittleEndian, callMessage()))
	f.Add(encoded(f, binary.BigEndian, callMessage([]string{"192.0.2.1"}, true)))
	f.Add(encoded(f, binary.LittleEndian, callMessage("a", "b")))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseFixed(b)
		if err != nil {
			return
		}
		c, ok := parseCall(h, b[:min(len(b), h.all)])
		if !ok {
			return
		}
		m, err := godbus.DecodeMessage(bytes.NewReader(b))
		if err == nil && m.Type == godbus.TypeMethodCall {
			for field, got := range map[godbus.HeaderField]string{godbus.FieldSender: c.Sender, godbus.FieldMember: c.Member, godbus.FieldInterface: c.Interface} {
				if want, _ := m.Headers[field].Value().(string); got != want {
					t.Errorf("field %d is %q, godbus reads %q", field, got, want)
				}
			}
		}
		c.Args.Text()
		c.Args.Texts(8)
		c.Args.Bool()
	})
}
