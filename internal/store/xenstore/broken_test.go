package xenstore

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"netvmd/internal/lab"
)

// scripted starts a store that answers every request with what the script makes of it, and returns its socket.
func scripted(t *testing.T, script func(request message) []byte) string {
	t.Helper()
	socket := filepath.Join(shortDir(t), "socket")
	server, err := lab.ListenUnix(socket, func(conn net.Conn) {
		for {
			request, err := decode(conn)
			if err != nil {
				return
			}
			if _, err := conn.Write(script(request)); err != nil {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return socket
}

func TestGarbageIsAnErrorThatEndsTheConnection(t *testing.T) {
	for _, tc := range []struct {
		name   string
		script func(message) []byte
		want   string
	}{
		{"another request's number", func(m message) []byte { return encode(kindRead, m.request+1, "x") }, "an answer of type 2 to request 2"},
		{"another type", func(m message) []byte { return encode(kindWrite, m.request, "OK\x00") }, "an answer of type 11 to request 1"},
		{"a number of 0, which only watches may have", func(message) []byte { return encode(kindRead, 0, "x") }, "an answer of type 2 to request 0"},
		{"too long", func(m message) []byte {
			b := encode(kindRead, m.request)
			binary.LittleEndian.PutUint32(b[12:], maxPayload+1)
			return b
		}, "a message of 4097 bytes; the protocol allows 4096"},
		{"an error without an end", func(m message) []byte { return encode(kindError, m.request, "ENOENT") }, `an error with the payload "ENOENT"`},
		{"an error that is no word", func(m message) []byte { return encode(kindError, m.request, "E no\n\x00") }, `an error with the payload "E no\n\x00"`},
		{"an error without a word", func(m message) []byte { return encode(kindError, m.request) }, "an error with the payload"},
		{"an event of no watch", func(m message) []byte {
			return append(encode(kindWatchEvent, 0, "path\x00", "7\x00"), encode(kindRead, m.request, "x")...)
		}, `an event of the watch "7", which nobody has set`},
		{"an event without a token", func(message) []byte { return encode(kindWatchEvent, 0, "path\x00") }, `a watch event with the payload "path\x00"`},
		{"noise", func(message) []byte { return []byte(strings.Repeat("\xff", 64)) }, "a message of 4294967295 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := withPatience(t)
			c := open(ctx, t, scripted(t, tc.script))
			_, err := c.Read(ctx, "name")
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), `xenstore: read "name": `) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			<-c.Done()
			if _, again := c.Read(ctx, "name"); again == nil {
				t.Error("the connection still answers")
			}
		})
	}
}

func TestAListWithoutAnEndIsAnError(t *testing.T) {
	ctx := withPatience(t)
	c := open(ctx, t, scripted(t, func(m message) []byte { return encode(m.kind, m.request, "a\x00b") }))
	if names, err := c.List(ctx, "folder"); err == nil {
		t.Errorf("got %q", names)
	}
}

func TestEventsBetweenAQuestionAndItsAnswer(t *testing.T) {
	// As Linux makes them up: the answer to a watch has the number 0, an event has whatever was on the stack.
	socket := scripted(t, func(m message) []byte {
		event := encode(kindWatchEvent, 0xdeadbeef, "name\x00", "0\x00")
		if m.kind == kindWatch {
			return append(event, encode(kindWatch, 0, "OK\x00")...)
		}
		return append(append(event, event...), encode(m.kind, m.request, "value")...)
	})
	ctx := withPatience(t)
	c := open(ctx, t, socket)
	tokens, err := c.Watch(ctx, "name")
	if err != nil {
		t.Fatal(err)
	}
	<-tokens
	if value, err := c.Read(ctx, "name"); err != nil || value != "value" {
		t.Errorf("got %q, %v", value, err)
	}
	<-tokens
}

func TestASilentStoreIsGivenUp(t *testing.T) {
	silent := scripted(t, func(message) []byte { return nil })
	for _, tc := range []struct {
		name string
		path string
	}{
		{"over a socket", silent},
		{"over a device", device(t, silent)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx := withPatience(t)
			c := open(ctx, t, tc.path)
			if _, err := c.Read(ctx, "name"); !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
				t.Errorf("got %v", err)
			}
			select {
			case <-c.Done():
			default:
				t.Error("the connection has not ended")
			}
		})
	}
}

func TestAStoreThatRestartsIsNoticedAndCanBeOpenedAgain(t *testing.T) {
	socket := filepath.Join(shortDir(t), "socket")
	x, err := lab.StartXenStore(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx := withPatience(t)
	c := open(ctx, t, socket)
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Done():
	case <-ctx.Done():
		t.Fatal("its end is not noticed")
	}
	if _, err := c.Read(ctx, "name"); err == nil || c.Err() == nil {
		t.Errorf("a store that is gone answers: %v, %v", err, c.Err())
	}
	if x, err = lab.StartXenStore(socket); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}()
	x.Set("name", "netvm")
	if name, err := open(ctx, t, socket).Read(ctx, "name"); err != nil || name != "netvm" {
		t.Errorf("got %q, %v", name, err)
	}
}

func TestWhatTheProtocolCannotCarryIsNotSent(t *testing.T) {
	_, socket := fake(t)
	ctx := withPatience(t)
	c := open(ctx, t, socket)
	for _, tc := range []struct {
		name, path, value, want string
	}{
		{"an empty path", "", "", `xenstore: write "": an empty path`},
		{"a path with a NUL", "a\x00b", "", `xenstore: write "a\x00b": a path with a NUL in it`},
		{"a relative path that is too long", strings.Repeat("a", maxRelative+1), "", "a path of 2049 bytes; the protocol allows 2048"},
		{"an absolute path that is too long", "/" + strings.Repeat("a", maxAbsolute), "", "a path of 3073 bytes; the protocol allows 3072"},
		{"a value that is too long", "name", strings.Repeat("v", maxPayload-4), "4097 bytes of path and value; the protocol allows 4096"},
	} {
		if err := c.Write(ctx, tc.path, tc.value); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %s", tc.name, err, tc.want)
		}
	}
	if err := c.Write(ctx, "name", "value"); err != nil {
		t.Errorf("the connection has suffered: %v", err)
	}
}

func TestWhatCannotBeOpened(t *testing.T) {
	ctx := withPatience(t)
	dir := shortDir(t)
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, plain); !errors.Is(err, os.ErrNoDeadline) {
		t.Errorf("a plain file: %v", err)
	}
	if _, err := Open(ctx, filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing at all: %v", err)
	}
}

func TestAutoTakesTheFirstThatIsThere(t *testing.T) {
	x, socket := fake(t)
	x.Set("name", "netvm")
	dir := shortDir(t)
	stale := filepath.Join(dir, "stale") // a socket that nobody listens on any more
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	usual := usualPaths
	t.Cleanup(func() { usualPaths = usual })
	ctx := withPatience(t)

	usualPaths = []string{filepath.Join(dir, "absent"), stale, socket}
	if c := open(ctx, t, Auto); c.Path() != socket {
		t.Errorf("it has opened %s", c.Path())
	}
	usualPaths = usualPaths[:2]
	if _, err := Open(ctx, Auto); err == nil || !strings.Contains(err.Error(), stale) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("with a stale socket alone: %v", err)
	}
	usualPaths = usualPaths[:1]
	if _, err := Open(ctx, Auto); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "absent") {
		t.Errorf("with nothing: %v", err)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(encode(kindRead, 1, "value"))
	f.Add(encode(kindError, 1, "ENOENT\x00"))
	f.Add(encode(kindDirectory, 1, "a\x00b\x00"))
	f.Add(append(encode(kindWatchEvent, 0, "path\x00", "0\x00"), encode(kindWatch, 0, "OK\x00")...))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := strings.NewReader(string(stream))
		for {
			before := r.Len()
			m, err := decode(r)
			if err != nil {
				return
			}
			if used := before - r.Len(); used != headerSize+len(m.payload) || len(m.payload) > maxPayload {
				t.Fatalf("%d bytes used for a payload of %d", used, len(m.payload))
			}
			if word, err := m.refusal(); err == nil && (!strings.HasPrefix(word.Error(), "E") || len(word) > maxErrorWord) {
				t.Errorf("the word %q", word)
			}
			if words, err := m.words(); err == nil && len(words) > 0 && strings.Join(words, "\x00")+"\x00" != string(m.payload) {
				t.Errorf("%q are the words of %q", words, m.payload)
			}
			if path, token, err := m.event(); err == nil && !strings.HasPrefix(string(m.payload), path+"\x00"+token+"\x00") {
				t.Errorf("an event of %q, %q from %q", path, token, m.payload)
			}
			if _, err := decode(strings.NewReader(string(encode(m.kind, m.request, string(m.payload))))); err != nil {
				t.Errorf("what was decoded and encoded again: %v", err)
			}
		}
	})
}
