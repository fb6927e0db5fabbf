package systembus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	godbus "github.com/godbus/dbus/v5"
)

// The header of a message, D-Bus specification, "Message Format": a fixed part, whose last field is the length of the
// array of fields that follows, padded to fieldAlign.
const (
	fixedHeader = 16 // bytes
	fieldAlign  = 8
)

// The most that a bus forwards, in bytes, D-Bus specification, "Message Format": more is no message.
const maxOnBus = 128 << 20

// Call is a method call that came in. Strangers have written it; the bus has checked its form, and vouches for Sender.
type Call struct {
	Sender                             string // the caller's unique name
	Path, Interface, Member, Signature string // Interface may be ""
	Flags                              godbus.Flags
	Args                               Args // only while the call is being taken

	serial uint32
}

// String names a call for people.
func (c *Call) String() string { return fmt.Sprintf("%s.%s from %s", c.Interface, c.Member, c.Sender) }

// header is what is read of a message before anything is done with it.
type header struct {
	order       binary.ByteOrder
	kind        godbus.Type
	flags       godbus.Flags
	serial      uint32
	fields, all int // bytes: of the array of fields, of the whole message
}

// errNoMessage says that what comes cannot be a message: the connection is of no use any more.
var errNoMessage = errors.New("the bus sent something that is no message")

// parseFixed reads the fixed part.
func parseFixed(b []byte) (header, error) {
	var h header
	if len(b) < fixedHeader {
		return h, errNoMessage
	}
	switch b[0] {
	case 'l':
		h.order = binary.LittleEndian
	case 'B':
		h.order = binary.BigEndian
	default:
		return h, errNoMessage
	}
	h.kind, h.flags, h.serial = godbus.Type(b[1]), godbus.Flags(b[2]), h.order.Uint32(b[8:])
	body, fields := uint64(h.order.Uint32(b[4:])), uint64(h.order.Uint32(b[12:]))
	padded := (fields + fieldAlign - 1) &^ (fieldAlign - 1)
	if fixedHeader+padded+body > maxOnBus {
		return h, errNoMessage
	}
	h.fields, h.all = int(fields), int(fixedHeader+padded+body)
	return h, nil
}

// bodyAt is where the body begins.
func (h header) bodyAt() int { return fixedHeader + (h.fields+fieldAlign-1)&^(fieldAlign-1) }

// parseCall reads the fields of the header. message begins with the fixed part, and may end before the message does if it
// is a long one. A field of a type that no field of today has makes the rest unreadable: ok is false.
func parseCall(h header, message []byte) (c *Call, ok bool) {
	end := fixedHeader + h.fields
	if end > len(message) {
		return nil, false
	}
	c = &Call{Flags: h.flags, serial: h.serial}
	in := Args{order: h.order, data: message[:end], at: fixedHeader}
	for in.at < end && !in.bad {
		in.align(fieldAlign)
		field := godbus.HeaderField(in.byte())
		switch kind := in.signature(); {
		case kind == "u":
			in.uint32()
		case kind == "g" && field == godbus.FieldSignature:
			c.Signature = in.signature()
		case kind == "g":
			in.signature()
		case kind == "s" || kind == "o":
			c.put(field, in.Text())
		default:
			return nil, false
		}
	}
	if at := h.bodyAt(); at <= len(message) {
		c.Args = Args{order: h.order, data: message, at: at}
	}
	return c, !in.bad
}

// put keeps a field that matters.
func (c *Call) put(field godbus.HeaderField, value string) {
	switch field {
	case godbus.FieldPath:
		c.Path = value
	case godbus.FieldInterface:
		c.Interface = value
	case godbus.FieldMember:
		c.Member = value
	case godbus.FieldSender:
		c.Sender = value
	}
}

// Args reads a call's arguments, one after the other. What is not there, or is none, is "", false or nothing, and makes
// Bad true.
type Args struct {
	order binary.ByteOrder
	data  []byte // of the whole message: values are aligned to its beginning
	at    int
	bad   bool
}

// Bad tells whether an argument was not what it was read as.
func (a *Args) Bad() bool { return a.bad }

// Text reads an argument of type s.
func (a *Args) Text() string {
	length := a.uint32()
	if length >= uint32(len(a.data)) {
		a.bad = true
		return ""
	}
	text := string(a.take(int(length)))
	a.take(1) // the NUL
	return text
}

// Texts reads an argument of type as. More than most of them are not looked at, and count as bad.
func (a *Args) Texts(most int) []string {
	length := a.uint32()
	end := a.at + int(length)
	if int64(length) > int64(len(a.data)) {
		a.bad = true
	}
	var out []string
	for a.at < end && !a.bad {
		if len(out) == most {
			a.bad = true
			break
		}
		out = append(out, a.Text())
	}
	return out
}

// Bool reads an argument of type b.
func (a *Args) Bool() bool {
	n := a.uint32()
	a.bad = a.bad || n > 1
	return n == 1
}

// take gives the next n bytes.
func (a *Args) take(n int) []byte {
	if a.bad || n > len(a.data)-a.at {
		a.bad = true
		return nil
	}
	b := a.data[a.at : a.at+n]
	a.at += n
	return b
}

func (a *Args) align(n int) { a.take((n - a.at%n) % n) }

func (a *Args) byte() byte {
	if b := a.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (a *Args) uint32() uint32 {
	a.align(4)
	if b := a.take(4); b != nil {
		return a.order.Uint32(b)
	}
	return 0
}

// signature reads a value of type g.
func (a *Args) signature() string {
	text := string(a.take(int(a.byte())))
	a.take(1) // the NUL
	return text
}

// Body is the values of an answer as they are on the wire.
type Body struct {
	signature string
	bytes     []byte
}

// Encode makes a body of values.
func Encode(values ...any) (Body, error) {
	if len(values) == 0 {
		return Body{}, nil
	}
	signature := godbus.SignatureOf(values...)
	whole := &godbus.Message{Type: godbus.TypeMethodReply, Body: values, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldReplySerial: godbus.MakeVariant(uint32(1)),
		godbus.FieldSignature:   godbus.MakeVariant(signature),
	}}
	var out bytes.Buffer
	if err := whole.EncodeTo(&out, binary.LittleEndian); err != nil {
		return Body{}, fmt.Errorf("encode an answer of type %s: %w", signature, err)
	}
	length := int(binary.LittleEndian.Uint32(out.Bytes()[4:]))
	return Body{signature.String(), out.Bytes()[out.Len()-length:]}, nil
}

// answer makes the head of the message that answers a call, before its body: an error if it has a name.
func (c *Call) answer(serial uint32, errorName string, body Body) []byte {
	kind := godbus.TypeMethodReply
	if errorName != "" {
		kind = godbus.TypeError
	}
	order := binary.LittleEndian
	m := make([]byte, 0, 256)
	m = append(m, 'l', byte(kind), byte(godbus.FlagNoReplyExpected|godbus.FlagNoAutoStart), 1)
	m = order.AppendUint32(m, uint32(len(body.bytes)))
	m = order.AppendUint32(m, serial)
	m = order.AppendUint32(m, 0) // the length of the fields, see below
	m = append(m, byte(godbus.FieldReplySerial), 1, 'u', 0)
	m = order.AppendUint32(m, c.serial)
	m = appendText(m, godbus.FieldDestination, c.Sender)
	if errorName != "" {
		m = appendText(m, godbus.FieldErrorName, errorName)
	}
	if body.signature != "" {
		m = append(pad(m), byte(godbus.FieldSignature), 1, 'g', 0, byte(len(body.signature)))
		m = append(append(m, body.signature...), 0)
	}
	order.PutUint32(m[12:], uint32(len(m)-fixedHeader))
	return pad(m)
}

// appendText appends a field of type s.
func appendText(m []byte, field godbus.HeaderField, text string) []byte {
	m = append(pad(m), byte(field), 1, 's', 0)
	m = binary.LittleEndian.AppendUint32(m, uint32(len(text)))
	return append(append(m, text...), 0)
}

func pad(m []byte) []byte {
	return append(m, make([]byte, (fieldAlign-len(m)%fieldAlign)%fieldAlign)...)
}
