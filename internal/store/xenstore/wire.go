package xenstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// kind is the type of a message (xen/include/public/io/xs_wire.h, enum xsd_sockmsg_type).
type kind uint32

const (
	kindDirectory  kind = 1
	kindRead       kind = 2
	kindWatch      kind = 4
	kindWrite      kind = 11
	kindRemove     kind = 13
	kindWatchEvent kind = 15
	kindError      kind = 16
)

// The limits of xs_wire.h, in bytes.
const (
	headerSize  = 16
	maxPayload  = 4096 // XENSTORE_PAYLOAD_MAX
	maxAbsolute = 3072 // XENSTORE_ABS_PATH_MAX
	maxRelative = 2048 // XENSTORE_REL_PATH_MAX
)

// message is a message without its transaction, which we never use, and which means nothing in the events that Linux
// makes up (xenbus_dev_frontend.c, watch_fired, leaves it and the number unset).
type message struct {
	kind    kind
	request uint32 // what a request's answer repeats
	payload []byte
}

// encode makes a message of the strings that follow each other in its payload.
func encode(k kind, request uint32, parts ...string) []byte {
	length := 0
	for _, p := range parts {
		length += len(p)
	}
	b := make([]byte, headerSize, headerSize+length)
	binary.LittleEndian.PutUint32(b[0:], uint32(k))
	binary.LittleEndian.PutUint32(b[4:], request)
	binary.LittleEndian.PutUint32(b[12:], uint32(length))
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// decode reads one message.
func decode(r io.Reader) (message, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return message{}, err
	}
	m := message{kind: kind(binary.LittleEndian.Uint32(header[0:])), request: binary.LittleEndian.Uint32(header[4:])}
	length := binary.LittleEndian.Uint32(header[12:])
	if length > maxPayload {
		return message{}, fmt.Errorf("a message of %d bytes; the protocol allows %d", length, maxPayload)
	}
	m.payload = make([]byte, length)
	if _, err := io.ReadFull(r, m.payload); err != nil {
		return message{}, err
	}
	return m, nil
}

// event is the payload of a watch event: which path has changed, and the token that the watch was given.
func (m message) event() (path, token string, err error) {
	words, err := m.words()
	if err != nil || len(words) != 2 {
		return "", "", fmt.Errorf("a watch event with the payload %.64q", m.payload)
	}
	return words[0], words[1], nil
}

// words are the strings of a payload, each of which ends with a NUL.
func (m message) words() ([]string, error) {
	if len(m.payload) == 0 {
		return nil, nil
	}
	whole, ok := bytes.CutSuffix(m.payload, []byte{0})
	if !ok {
		return nil, fmt.Errorf("a list without an end: %.64q", m.payload)
	}
	return strings.Split(string(whole), "\x00"), nil
}

// maxErrorWord is far more than the longest of XenStore's words, in bytes.
const maxErrorWord = 32

// refusal is the payload of an error: one of the words of xs_wire.h, such as ENOENT.
func (m message) refusal() (Error, error) {
	word, ok := bytes.CutSuffix(m.payload, []byte{0})
	if !ok || len(word) < 2 || len(word) > maxErrorWord || word[0] != 'E' {
		return "", fmt.Errorf("an error with the payload %.64q", m.payload)
	}
	for _, c := range word {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return "", fmt.Errorf("an error with the payload %.64q", m.payload)
		}
	}
	return Error(word), nil
}

// checkPath finds what the protocol cannot carry; which characters a path may have is XenStore's own business.
func checkPath(path string) error {
	limit := maxRelative
	if strings.HasPrefix(path, "/") {
		limit = maxAbsolute
	}
	switch {
	case path == "":
		return errors.New("an empty path")
	case len(path) > limit:
		return fmt.Errorf("a path of %d bytes; the protocol allows %d", len(path), limit)
	case strings.Contains(path, "\x00"):
		return errors.New("a path with a NUL in it")
	}
	return nil
}
