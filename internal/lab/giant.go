package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/dbus"
)

// giantServer is one element of the list in a giant call, D-Bus specification, "Marshaling": its length, the text with a
// NUL, and what aligns the next.
var giantServer = []byte("\x0a\x00\x00\x00192.0.2.55\x00\x00")

// Offsets in a message, D-Bus specification, "Message Format".
const (
	offsetBodyLength = 4
	offsetSerial     = 8
)

// giantCall builds SetDnsOverride with so many servers. It is put together by hand: with a library it takes seconds to
// build a million of them, and who attacks has no use for a library.
func giantCall(servers int, serial uint32) ([]byte, error) {
	m := godbus.Message{Type: godbus.TypeMethodCall, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(dbus.Name),
		godbus.FieldPath:        godbus.MakeVariant(dbus.Path),
		godbus.FieldInterface:   godbus.MakeVariant(dbus.Interface),
		godbus.FieldMember:      godbus.MakeVariant("SetDnsOverride"),
		godbus.FieldSignature:   godbus.MakeVariant(godbus.ParseSignatureMust("asb")),
	}, Body: []any{[]string{}, false}}
	var wire bytes.Buffer
	if err := m.EncodeTo(&wire, binary.LittleEndian); err != nil {
		return nil, fmt.Errorf("a giant call: %w", err)
	}
	const noServers = 4 + 4 // the list's length, and the boolean
	message := wire.Bytes()[:wire.Len()-noServers]
	list := bytes.Repeat(giantServer, servers)
	binary.LittleEndian.PutUint32(message[offsetBodyLength:], uint32(len(list)+noServers))
	binary.LittleEndian.PutUint32(message[offsetSerial:], serial)
	message = binary.LittleEndian.AppendUint32(message, uint32(len(list)-1)) // what aligns is not part of it
	return append(append(message, list...), 0, 0, 0, 0), nil
}

// CallWithGiants calls SetDnsOverride as a user, some times with so many servers, and returns the names of the errors that
// this is answered with; "" is none.
func (v *NetVM) CallWithGiants(ctx context.Context, u User, times, servers int) ([]string, error) {
	socket, err := dialAs(u)
	if err != nil {
		return nil, err
	}
	conn, err := join(socket, u)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // every call was answered
	heard := make(chan *godbus.Message, 2*times)
	conn.Eavesdrop(heard) // godbus knows nothing of the calls
	var answers []string
	for serial := uint32(1000); len(answers) < times; serial++ {
		call, err := giantCall(servers, serial)
		if err != nil {
			return nil, err
		}
		if _, err := socket.Write(call); err != nil {
			return nil, fmt.Errorf("netvm: send %d bytes as %s: %w", len(call), u.Name, err)
		}
		answer, err := answerTo(ctx, heard, serial)
		if err != nil {
			return nil, err
		}
		answers = append(answers, answer)
	}
	return answers, nil
}

// answerTo waits for the answer to a call, and returns its error's name.
func answerTo(ctx context.Context, heard <-chan *godbus.Message, serial uint32) (string, error) {
	for {
		select {
		case m, open := <-heard:
			if !open {
				return "", fmt.Errorf("netvm: the bus ended the connection instead of answering call %d", serial)
			}
			if m.Headers[godbus.FieldReplySerial].Value() != serial {
				continue
			}
			name, _ := m.Headers[godbus.FieldErrorName].Value().(string)
			return name, nil
		case <-ctx.Done():
			return "", fmt.Errorf("netvm: call %d is not answered: %w", serial, ctx.Err())
		}
	}
}
