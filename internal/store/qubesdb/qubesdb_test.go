package qubesdb

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"netvmd/internal/lab"
)

// patience bounds what a test waits for. It is only reached by a failing test.
const patience = 20 * time.Second

func withPatience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// socketPath is short: a socket's has at most 107 bytes (unix(7)), and t.TempDir's holds the test's name.
func socketPath(t *testing.T) string {
	dir, err := os.MkdirTemp("", "qdb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "socket")
}

func closeAtEnd(t *testing.T, c io.Closer) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

func open(ctx context.Context, t *testing.T, socket string) *Client {
	t.Helper()
	c, err := Open(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // some tests end it themselves
	return c
}

func fake(ctx context.Context, t *testing.T) (*lab.QubesDB, *Client) {
	t.Helper()
	socket := socketPath(t)
	q, err := lab.StartQubesDB(socket)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, q)
	return q, open(ctx, t, socket)
}

func TestReadAndList(t *testing.T) {
	ctx := withPatience(t)
	q, c := fake(ctx, t)
	long := strings.Repeat("v", maxData)
	q.Set("/qubes-netvm-gateway", "10.137.0.5")
	q.Set("/qubes-service/network-manager", "1")
	q.Set("/qubes-service/crond", "")
	q.Set("/long", long)
	for path, want := range map[string]string{"/qubes-netvm-gateway": "10.137.0.5", "/qubes-service/crond": "", "/long": long} {
		if got, err := c.Read(ctx, path); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", path, got, err, want)
		}
	}
	if _, err := c.Read(ctx, "/qubes-service"); !errors.Is(err, ErrNoEntry) || err.Error() != `qubesdb: read "/qubes-service": no such entry` {
		t.Errorf("a path without a value: %v", err)
	}
	if _, err := c.Read(ctx, "/a b"); !errors.Is(err, ErrRefused) {
		t.Errorf("a path that QubesDB does not allow: %v", err)
	}
	if got, err := c.List(ctx, "/qubes-service/"); err != nil || !slices.Equal(got, []string{"/qubes-service/crond", "/qubes-service/network-manager"}) {
		t.Errorf("the list is %q, %v", got, err)
	}
	if got, err := c.List(ctx, "/none/"); err != nil || len(got) != 0 {
		t.Errorf("an empty list is %q, %v", got, err)
	}
}

func TestWatch(t *testing.T) {
	ctx := withPatience(t)
	q, c := fake(ctx, t)
	q.Set("/qubes-service/harden", "1")
	tokens, err := c.Watch(ctx, "/qubes-netvm-gateway", "/qubes-service/harden")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		change func()
		token  bool
	}{
		{"a path that did not exist is written", func() { q.Set("/qubes-netvm-gateway", "10.137.0.5") }, true},
		{"another path is written", func() { q.Set("/qubes-netvm-gateway6", "fe80::1") }, false},
		{"it is removed", func() { q.Delete("/qubes-netvm-gateway") }, true},
		{"a folder is removed with it", func() { q.Delete("/qubes-service/") }, true},
		{"everything is removed", func() { q.Delete("/") }, true},
	} {
		tc.change()
		if _, err := c.Read(ctx, "/x"); !errors.Is(err, ErrNoEntry) { // after which all events before it are in
			t.Fatal(err)
		}
		if got := len(tokens) > 0; got != tc.token {
			t.Errorf("%s: a token is %t, want %t", tc.name, got, tc.token)
		}
		for len(tokens) > 0 {
			<-tokens
		}
	}
}

// answer makes a message of the daemon's.
func answer(k kind, path, data string) []byte {
	b := encode(k, path)
	binary.LittleEndian.PutUint32(b[lengthAt:], uint32(len(data)))
	return append(b, data...)
}

// scripted opens a daemon that answers every request with the same bytes.
func scripted(ctx context.Context, t *testing.T, script []byte) *Client {
	t.Helper()
	socket := socketPath(t)
	server, err := lab.ListenUnix(socket, func(conn net.Conn) {
		for {
			if _, err := io.ReadFull(conn, make([]byte, headerSize)); err != nil {
				return
			}
			if _, err := conn.Write(script); err != nil {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, server)
	return open(ctx, t, socket)
}

func TestEventsInTheMiddleOfAList(t *testing.T) {
	event := answer(kindChanged, "/x", "")
	ctx := withPatience(t)
	c := scripted(ctx, t, slices.Concat(event, answer(kindEntry, "/x/1", ""), event, answer(kindEntry, "/x/2", ""), event, answer(kindEntry, "", "")))
	for range 3 {
		if got, err := c.List(ctx, "/x/"); err != nil || !slices.Equal(got, []string{"/x/1", "/x/2"}) {
			t.Errorf("the list is %q, %v", got, err)
		}
	}
}

func TestGarbageIsAnErrorThatEndsTheConnection(t *testing.T) {
	long := answer(kindValue, "/x", "")
	binary.LittleEndian.PutUint32(long[lengthAt:], maxData+1)
	endless := answer(kindValue, strings.Repeat("x", pathSize), "")
	for _, tc := range []struct {
		name   string
		script []byte
		want   string
	}{
		{"another path", answer(kindValue, "/y", "1"), `an answer of type 10 about "/y", which nobody has asked for`},
		{"a refusal of another path", answer(kindNoEntry, "/y", ""), `an answer of type 8 about "/y"`},
		{"another type", answer(kindEntry, "/x", ""), `an answer of type 12 about "/x"`},
		{"a type that is none of the daemon's", answer(kindRead, "/x", ""), "a message of type 0, which is no answer"},
		{"an unknown type", answer(200, "/x", ""), "a message of type 200"},
		{"too long", long, "a message with 3073 bytes of data; the protocol allows 3072"},
		{"a path without an end", endless, "a path without an end"},
		{"noise", bytes.Repeat([]byte{0xff}, 200), "a message of type 255"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := withPatience(t)
			c := scripted(ctx, t, tc.script)
			_, err := c.Read(ctx, "/x")
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), `qubesdb: read "/x": `) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			<-c.Done()
			if c.Err() == nil {
				t.Error("the connection does not say why it has ended")
			}
		})
	}
}

func TestAListThatHasWhatWasNotAskedForIsAnError(t *testing.T) {
	ctx := withPatience(t)
	c := scripted(ctx, t, answer(kindEntry, "/other", ""))
	if got, err := c.List(ctx, "/x/"); err == nil {
		t.Errorf("got %q", got)
	}
}

func TestASilentDaemonIsGivenUp(t *testing.T) {
	ctx := withPatience(t)
	c := scripted(ctx, t, nil)
	if _, err := c.Read(ctx, "/x"); !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		t.Errorf("got %v", err)
	}
}

func TestWhatTheProtocolCannotCarryIsNotSent(t *testing.T) {
	ctx := withPatience(t)
	_, c := fake(ctx, t)
	for path, want := range map[string]string{
		"":                                  "does not begin with /",
		"qubes-ip":                          "does not begin with /",
		"/a\x00b":                           "NUL",
		"/" + strings.Repeat("a", pathSize): "a path of 65 bytes; the protocol allows 63",
	} {
		if _, err := c.Read(ctx, path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("read %q: %v, want %s", path, err, want)
		}
		if _, err := c.Watch(ctx, path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("watch %q: %v, want %s", path, err, want)
		}
	}
	if _, err := c.Read(ctx, "/"+strings.Repeat("a", pathSize-2)); !errors.Is(err, ErrNoEntry) {
		t.Errorf("the longest path: %v", err)
	}
}

func TestADaemonThatEndsIsNoticed(t *testing.T) {
	ctx := withPatience(t)
	socket := socketPath(t)
	q, err := lab.StartQubesDB(socket)
	if err != nil {
		t.Fatal(err)
	}
	c := open(ctx, t, socket)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Done():
	case <-ctx.Done():
		t.Fatal("its end is not noticed")
	}
	if _, err := Open(ctx, socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("open it again: %v", err)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(answer(kindValue, "/qubes-ip", "10.137.0.16"))
	f.Add(slices.Concat(answer(kindEntry, "/a", ""), answer(kindChanged, "/b", ""), answer(kindEntry, "", "")))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bytes.NewReader(stream)
		for {
			before := r.Len()
			m, err := decode(r)
			if err != nil {
				return
			}
			if used := before - r.Len(); used != headerSize+len(m.data) || len(m.data) > maxData {
				t.Fatalf("%d bytes used for %d of data", used, len(m.data))
			}
			if len(m.path) >= pathSize || strings.Contains(m.path, "\x00") || m.kind < kindOK || m.kind > kindChanged {
				t.Errorf("type %d, path %q", m.kind, m.path)
			}
			if again, err := decode(bytes.NewReader(answer(m.kind, m.path, string(m.data)))); err != nil || again.path != m.path || !bytes.Equal(again.data, m.data) {
				t.Errorf("what was decoded and encoded again: %+v, %v", again, err)
			}
		}
	})
}
