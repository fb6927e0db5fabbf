package xenstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"netvmd/internal/lab"
)

// patience bounds what a test waits for. It is only reached by a failing test.
const patience = 20 * time.Second

// fetchPatience is for a network that brings 2 MB.
const fetchPatience = 3 * time.Minute

func withPatience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// fake starts the lab's store and returns its socket.
func fake(t *testing.T) (*lab.XenStore, string) {
	t.Helper()
	socket := filepath.Join(shortDir(t), "socket")
	x, err := lab.StartXenStore(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x, socket
}

func open(ctx context.Context, t *testing.T, path string) *Client {
	t.Helper()
	c, err := Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // some tests end it themselves
	return c
}

// conversation is what every xenstored must do, whatever carries the bytes: c and other are two connections to it.
func conversation(t *testing.T, c, other *Client) {
	ctx := withPatience(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func(path, want string) {
		t.Helper()
		if got, err := c.Read(ctx, path); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", path, got, err, want)
		}
	}
	refused := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	const folder = "backend/vif/1/0"
	must(c.Write(ctx, folder+"/mac", "00:16:3e:5e:6c:00"))
	read(folder+"/mac", "00:16:3e:5e:6c:00")
	read("/local/domain/0/"+folder+"/mac", "00:16:3e:5e:6c:00") // an absolute path is the same thing
	must(c.Write(ctx, "/local/domain/0/"+folder+"/ip", ""))
	read(folder+"/ip", "")
	long := strings.Repeat("v", maxPayload-len(folder+"/long")-1)
	must(c.Write(ctx, folder+"/long", long))
	read(folder+"/long", long)
	must(c.Write(ctx, folder+"/bytes", "a\x00b\xff\n"))
	read(folder+"/bytes", "a\x00b\xff\n")

	names, err := c.List(ctx, folder)
	slices.Sort(names)
	if want := []string{"bytes", "ip", "long", "mac"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("the folder holds %q, %v; want %q", names, err, want)
	}
	if names, err := c.List(ctx, folder+"/ip"); err != nil || len(names) != 0 {
		t.Errorf("an empty folder holds %q, %v", names, err)
	}
	_, err = c.Read(ctx, folder+"/absent")
	refused(err, ErrNoEntry)
	_, err = c.List(ctx, "absent")
	refused(err, ErrNoEntry)
	refused(c.Remove(ctx, "absent/absent"), ErrNoEntry)
	must(c.Remove(ctx, "absent"))
	_, err = c.Read(ctx, "../0/vm")
	refused(err, Error("EINVAL"))

	tokens, err := c.Watch(ctx, folder, "/local/domain/0/elsewhere")
	must(err)
	token := func(after string) {
		t.Helper()
		select {
		case <-tokens:
		case <-ctx.Done():
			t.Fatalf("no token after %s", after)
		}
	}
	token("the watches were set")
	for len(tokens) > 0 { // the second watch may have had its first event after that
		<-tokens
	}
	read(folder+"/ip", "") // both first events are in by now
	for len(tokens) > 0 {
		<-tokens
	}
	must(other.Write(ctx, folder+"/ip", "10.137.0.16"))
	token("a write below a watched path")
	must(other.Write(ctx, "elsewhere", "x"))
	token("a write to a path that did not exist")
	must(other.Remove(ctx, "backend"))
	token("the removal of a folder above")
	_, err = c.Read(ctx, folder+"/mac")
	refused(err, ErrNoEntry)
	must(other.Write(ctx, "backend", "again"))
	must(c.Remove(ctx, "backend"))
	must(c.Remove(ctx, "elsewhere"))
}

func TestTheLabsXenStoreOverItsSocket(t *testing.T) {
	_, socket := fake(t)
	ctx := withPatience(t)
	conversation(t, open(ctx, t, socket), open(ctx, t, socket))
}

func TestTheLabsXenStoreOverADevice(t *testing.T) {
	_, socket := fake(t)
	ctx := withPatience(t)
	conversation(t, open(ctx, t, device(t, socket)), open(ctx, t, socket))
}

func TestManyAskAtTheSameTime(t *testing.T) {
	_, socket := fake(t)
	ctx := withPatience(t)
	c := open(ctx, t, socket)
	tokens, err := c.Watch(ctx, "vm") // whose events come between
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 16 {
		all.Add(1)
		go func() {
			defer all.Done()
			path := fmt.Sprintf("vm/%d", i)
			for j := range 50 {
				want := fmt.Sprintf("%d of %d", j, i)
				if err := c.Write(ctx, path, want); err != nil {
					t.Error(err)
					return
				}
				if got, err := c.Read(ctx, path); err != nil || got != want {
					t.Errorf("%s is %q, %v; want %q", path, got, err, want)
					return
				}
			}
		}()
	}
	all.Wait()
	<-tokens
}

func TestARefusalKeepsItsWordAndTheConnection(t *testing.T) {
	x, socket := fake(t)
	x.Set("secret", "1")
	x.Refuse("secret", "EACCES")
	ctx := withPatience(t)
	c := open(ctx, t, socket)
	_, err := c.Read(ctx, "secret")
	if !errors.Is(err, Error("EACCES")) || err.Error() != `xenstore: read "secret": EACCES` {
		t.Errorf("got %v", err)
	}
	if err := c.Write(ctx, "other", "2"); err != nil {
		t.Error(err)
	}
}

func TestTheRealXenstored(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchPatience)
	defer cancel()
	x, err := lab.StartXenstored(ctx, shortDir(t))
	if errors.Is(err, lab.ErrNoXenstored) {
		t.Logf("the client is tested with the lab's own store alone: %v", err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}()
	t.Run("over its socket", func(t *testing.T) {
		conversation(t, open(ctx, t, x.Socket), open(ctx, t, x.Socket))
	})
	t.Run("over a device", func(t *testing.T) {
		conversation(t, open(ctx, t, device(t, x.Socket)), open(ctx, t, x.Socket))
	})
}

// shortDir is a folder for sockets, whose paths have at most 107 bytes (unix(7)); t.TempDir's hold the test's name.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "xs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
