package qubesdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// kind is the type of a message (qubesdb.h, enum qdb_msg).
type kind uint8

const (
	kindRead    kind = 0
	kindList    kind = 3
	kindWatch   kind = 5
	kindOK      kind = 7 // the first of the answers
	kindNoEntry kind = 8
	kindError   kind = 9
	kindValue   kind = 10
	kindEntry   kind = 12 // of a list
	kindChanged kind = 13 // of a watch; the last there is
)

// The layout of qubesdb.h's struct qdb_hdr, in bytes. The length is aligned as C does it; what lies between is padding
// and may hold anything, as may the path's field after its NUL.
const (
	headerSize = 72
	pathAt     = 1
	pathSize   = 64 // QDB_MAX_PATH, with the NUL
	lengthAt   = 68
	maxData    = 3072 // QDB_MAX_DATA
)

// message is a message of either direction.
type message struct {
	kind kind
	path string
	data []byte
}

// encode makes a request; none of ours carries data.
func encode(k kind, path string) []byte {
	b := make([]byte, headerSize)
	b[0] = byte(k)
	copy(b[pathAt:pathAt+pathSize], path)
	return b
}

// decode reads one message of the daemon's.
func decode(r io.Reader) (message, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return message{}, err
	}
	m := message{kind: kind(header[0])}
	if m.kind < kindOK || m.kind > kindChanged {
		return message{}, fmt.Errorf("a message of type %d, which is no answer", m.kind)
	}
	path, _, ended := bytes.Cut(header[pathAt:pathAt+pathSize], []byte{0})
	if !ended {
		return message{}, fmt.Errorf("a path without an end: %.64q", path)
	}
	m.path = string(path)
	length := binary.LittleEndian.Uint32(header[lengthAt:])
	if length > maxData {
		return message{}, fmt.Errorf("a message with %d bytes of data; the protocol allows %d", length, maxData)
	}
	m.data = make([]byte, length)
	if _, err := io.ReadFull(r, m.data); err != nil {
		return message{}, err
	}
	return m, nil
}

// checkPath finds what the protocol cannot carry; which characters a path may have is the daemon's business.
func checkPath(path string) error {
	switch {
	case !strings.HasPrefix(path, "/"):
		return errors.New("a path that does not begin with /")
	case len(path) >= pathSize:
		return fmt.Errorf("a path of %d bytes; the protocol allows %d", len(path), pathSize-1)
	case strings.Contains(path, "\x00"):
		return errors.New("a path with a NUL in it")
	}
	return nil
}
