package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/dbus"
)

// wire is a connection to the bus without a library: who attacks has no use for one, which would take more of the machine
// than the attacked. D-Bus specification, "Authentication Protocol" and "Message Protocol".
type wire struct {
	net.Conn
	in     *bufio.Reader
	serial uint32 // of the last call
}

// Offsets in a message, and the length of its part that is always there.
const (
	offsetBodyLength   = 4
	offsetSerial       = 8
	offsetHeaderLength = 12
	fixedLength        = 16
)

// wireAs joins the bus as a user.
func (d *Domain) wireAs(u User) (*wire, error) {
	socket, err := d.dialAs(u)
	if err != nil {
		return nil, err
	}
	w := &wire{Conn: socket, in: bufio.NewReader(socket)}
	if err := w.join(u); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: join the bus as %s: %w", d.Name, u.Name, err), w.Close())
	}
	return w, nil
}

func (w *wire) join(u User) error {
	user := hex.EncodeToString([]byte(strconv.Itoa(int(u.UID))))
	if _, err := fmt.Fprintf(w, "\x00AUTH EXTERNAL %s\r\n", user); err != nil {
		return err
	}
	if line, err := w.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "OK ") {
		return fmt.Errorf("the bus says %q: %w", line, err)
	}
	hello, err := encodeCall(busName, "/org/freedesktop/DBus", busName+".Hello")
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, "BEGIN\r\n"); err != nil {
		return err
	}
	if err := w.call(hello); err != nil {
		return err
	}
	if refused, err := w.answer(); err != nil || refused != "" {
		return fmt.Errorf("the bus answers Hello with %q: %w", refused, err)
	}
	return nil
}

// call sends a call of encodeCall, with a serial of its own.
func (w *wire) call(message []byte) error {
	w.serial++
	binary.LittleEndian.PutUint32(message[offsetSerial:], w.serial)
	_, err := w.Write(message)
	return err
}

// answer reads up to the next answer, and returns the name of its error; "" is none.
func (w *wire) answer() (string, error) {
	for {
		fixed, err := w.in.Peek(fixedLength)
		if err != nil {
			return "", err
		}
		order := binary.ByteOrder(binary.LittleEndian)
		if fixed[0] == 'B' {
			order = binary.BigEndian
		}
		kind, header, body := godbus.Type(fixed[1]), order.Uint32(fixed[offsetHeaderLength:]), order.Uint32(fixed[offsetBodyLength:])
		whole := io.LimitReader(w.in, fixedLength+int64(header+7)/8*8+int64(body)) // a header ends at a multiple of 8
		var refused string
		if kind == godbus.TypeError {
			m, err := godbus.DecodeMessage(whole)
			if err != nil {
				return "", err
			}
			refused, _ = m.Headers[godbus.FieldErrorName].Value().(string)
		}
		if _, err := io.Copy(io.Discard, whole); err != nil {
			return "", err
		}
		if kind == godbus.TypeError || kind == godbus.TypeMethodReply {
			return refused, nil
		}
	}
}

// encodeCall builds a call, whose serial is still to be set.
func encodeCall(destination string, path godbus.ObjectPath, method string, args ...any) ([]byte, error) {
	dot := strings.LastIndexByte(method, '.')
	m := godbus.Message{Type: godbus.TypeMethodCall, Body: args, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(destination),
		godbus.FieldPath:        godbus.MakeVariant(path),
		godbus.FieldInterface:   godbus.MakeVariant(method[:dot]),
		godbus.FieldMember:      godbus.MakeVariant(method[dot+1:]),
	}}
	if len(args) > 0 {
		m.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(args...))
	}
	var out bytes.Buffer
	if err := m.EncodeTo(&out, binary.LittleEndian); err != nil {
		return nil, fmt.Errorf("encode a call of %s: %w", method, err)
	}
	return out.Bytes(), nil
}

// encode is encodeCall of a call of netvmd.
func (c call) encode() ([]byte, error) { return encodeCall(dbus.Name, dbus.Path, c.method, c.args...) }

// giantServer is an element of the list in a giant call, D-Bus specification, "Marshaling": its length, the text with a
// NUL, and what aligns the next.
var giantServer = []byte("\x0a\x00\x00\x00192.0.2.55\x00\x00")

// giantCall builds SetDnsOverride with so many servers.
func giantCall(servers int) ([]byte, error) {
	message, err := call{dbus.Interface + ".SetDnsOverride", []any{[]string{}, false}}.encode()
	if err != nil {
		return nil, err
	}
	const noServers = 4 + 4 // the list's length, and the boolean
	message = message[:len(message)-noServers]
	list := bytes.Repeat(giantServer, servers)
	binary.LittleEndian.PutUint32(message[offsetBodyLength:], uint32(len(list)+noServers))
	message = binary.LittleEndian.AppendUint32(message, uint32(len(list)-1)) // what aligns is not part of it
	return append(append(message, list...), 0, 0, 0, 0), nil
}

// CallWithGiants calls SetDnsOverride as a user, some times with so many servers, and returns the names of the errors that
// this is answered with; "" is none.
func (v *NetVM) CallWithGiants(ctx context.Context, u User, times, servers int) (answers []string, err error) {
	giant, err := giantCall(servers)
	if err != nil {
		return nil, err
	}
	w, err := v.wireAs(u)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = w.Close() })() // which ends a read
	for len(answers) < times && err == nil {
		var answer string
		if err = w.call(giant); err == nil {
			answer, err = w.answer()
			answers = append(answers, answer)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("netvm: a call with %d servers: %w", servers, err), ctx.Err())
	}
	return answers, w.Close()
}

// Deaf makes many calls as a user who never reads an answer, and stays connected until it is closed.
func (v *NetVM) Deaf(u User, calls int) (io.Closer, error) {
	introspect, err := call{method: "org.freedesktop.DBus.Introspectable.Introspect"}.encode()
	if err != nil {
		return nil, err
	}
	w, err := v.wireAs(u)
	if err != nil {
		return nil, err
	}
	for range calls {
		if err := w.call(introspect); err != nil {
			return nil, errors.Join(fmt.Errorf("netvm: call as %s: %w", u.Name, err), w.Close())
		}
	}
	return w, nil
}
