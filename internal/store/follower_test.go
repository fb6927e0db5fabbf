package store

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"netvmd/internal/lab"
)

// followed is a Follower that runs until the test ends.
type followed struct {
	*Follower
	t     *testing.T
	ended chan error
}

func follow(t *testing.T, o Options) *followed {
	t.Helper()
	return run(t, NewFollower(o, slog.New(slog.NewTextHandler(io.Discard, nil))))
}

func run(t *testing.T, follower *Follower) *followed {
	t.Helper()
	f := &followed{follower, t, make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { f.ended <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-f.ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end with its context")
		}
	})
	return f
}

// until waits for a word of the follower's that holds.
func (f *followed) until(what string, holds func(Settings, []string) bool) {
	f.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case <-f.Changed():
			if s, problems := f.Take(); holds(s, problems) {
				return
			}
		case <-deadline:
			s, problems := f.Take()
			f.t.Fatalf("%s: not within %s; the last word was %+v, %q", what, patience, s, problems)
		}
	}
}

// settings waits for just these settings, without a problem.
func (f *followed) settings(want Settings) {
	f.t.Helper()
	f.until("the settings", func(s Settings, problems []string) bool { return s.equal(want) && len(problems) == 0 })
}

// problem waits until these settings are in force and each problem holds its words.
func (f *followed) problem(want Settings, words ...string) {
	f.t.Helper()
	f.until("the problem", func(s Settings, problems []string) bool {
		return s.equal(want) && slices.EqualFunc(problems, words, strings.Contains)
	})
}

// store is what both of the lab's stores can do; keys are where they have the gateway and the second DNS address.
type store struct {
	kind            string
	start           func(*testing.T, Options) fakeStore
	gateway, second string
	settings        func(gateway, second string) Settings
}

type fakeStore interface {
	Set(path, value string)
	Delete(path string)
	Close() error
}

var stores = []store{
	{QubesDB, func(t *testing.T, o Options) fakeStore { return startQubesDB(t, o) }, "/qubes-netvm-gateway", "/qubes-netvm-secondary-dns",
		func(gateway, second string) Settings {
			return Settings{Gateway: addr(gateway), Virtual: addrs(second)}
		}},
	{XenStore, func(t *testing.T, o Options) fakeStore { return startXenStore(t, o) }, "qubes_netvm_gateway", "qubes_netvm_secondary_dns",
		func(gateway, second string) Settings {
			return Settings{Gateway: addr(gateway), Virtual: addrs(gateway + " " + second)}
		}},
}

func TestFollowing(t *testing.T) {
	for _, kind := range stores {
		t.Run(kind.kind, func(t *testing.T) {
			o := machine(t, Auto)
			s := kind.start(t, o)
			s.Set(kind.gateway, "10.137.0.5")
			s.Set(kind.second, "10.139.1.2")
			f := follow(t, o)
			f.settings(kind.settings("10.137.0.5", "10.139.1.2"))

			s.Set(kind.second, "10.139.1.3")
			f.settings(kind.settings("10.137.0.5", "10.139.1.3"))

			// Of a half-good set nothing is taken, and the problem goes with its cause.
			s.Set(kind.second, "10.139.1.0/24")
			s.Set(kind.gateway, "10.137.0.6")
			f.problem(kind.settings("10.137.0.5", "10.139.1.3"), `"10.139.1.0/24" is a network`)
			s.Set(kind.second, "10.139.1.3")
			f.settings(kind.settings("10.137.0.6", "10.139.1.3"))

			// The store goes, and comes back with other values.
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			f.problem(kind.settings("10.137.0.6", "10.139.1.3"), "the store cannot be followed")
			s = kind.start(t, o)
			s.Set(kind.gateway, "10.137.0.7")
			s.Set(kind.second, "10.139.1.4")
			f.settings(kind.settings("10.137.0.7", "10.139.1.4"))
			s.Delete(kind.gateway)
			s.Delete(kind.second)
			f.settings(Settings{})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			f.problem(Settings{}, "the store cannot be followed")
		})
	}
}

func TestAutoSettlesOnWhatItFindsFirst(t *testing.T) {
	o := machine(t, Auto)
	x := startXenStore(t, o)
	x.Set("qubes_ip", "10.137.1.9")
	f := follow(t, o)
	f.settings(Settings{PassThrough: true})
	q := startQubesDB(t, o)
	closeAtEnd(t, q)
	q.Set("/qubes-netvm-gateway", "10.137.0.5")
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	f.problem(Settings{PassThrough: true}, "xenstore")
	x = startXenStore(t, o)
	closeAtEnd(t, x)
	f.settings(Settings{})
}

func TestTheFirstWordOfAMachineWithoutAStoreIsThatNothingIsSet(t *testing.T) {
	for _, kind := range []string{None, Auto} {
		t.Run(kind, func(t *testing.T) { follow(t, machine(t, kind)).settings(Settings{}) })
	}
}

func TestAutoFindsAStoreThatIsLate(t *testing.T) {
	o := machine(t, Auto)
	f := follow(t, o)
	f.settings(Settings{})
	q := startQubesDB(t, o)
	closeAtEnd(t, q)
	q.Set("/qubes-ip", "10.137.0.7")
	f.settings(Settings{PassThrough: true})
}

func TestAutoGivesUpLookingForAStoreWhereThereIsNone(t *testing.T) {
	o := machine(t, Auto)
	settled := make(chan string, 1)
	f := NewFollower(o, slog.New(slog.NewTextHandler(lines(settled), nil)))
	f.pause = time.Microsecond
	run(t, f).settings(Settings{})
	select {
	case line := <-settled:
		if !strings.Contains(line, "store=none") {
			t.Errorf("it has settled on another store: %s", line)
		}
	case <-time.After(patience):
		t.Fatal("it does not give up")
	}
	asked := make(chan struct{}, 1)
	server, err := lab.ListenUnix(o.QubesDBSocket, func(net.Conn) { asked <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, server)
	select {
	case <-asked:
		t.Error("it still looks")
	case <-time.After(20 * time.Millisecond): // by then it would have asked many times
	}
}

// lines sends every line that is logged.
type lines chan<- string

func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

func TestAStoreThatWasAskedForAndIsNotThereIsAProblemUntilItIs(t *testing.T) {
	for _, kind := range stores {
		t.Run(kind.kind, func(t *testing.T) {
			o := machine(t, kind.kind)
			f := follow(t, o)
			f.problem(Settings{}, "no such file or directory")
			s := kind.start(t, o)
			closeAtEnd(t, s)
			f.settings(Settings{})
		})
	}
}

func TestTheFirstWordComesAlthoughTheStoreIsSilent(t *testing.T) {
	o := machine(t, Auto)
	server, err := lab.ListenUnix(o.QubesDBSocket, func(conn net.Conn) {
		_, _ = io.Copy(io.Discard, conn) // until the client goes
	})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, server)
	follow(t, o).problem(Settings{}, "deadline exceeded")
}

func TestAChangeThatMattersNotIsNoWord(t *testing.T) {
	o := machine(t, QubesDB)
	q := startQubesDB(t, o)
	closeAtEnd(t, q)
	f := follow(t, o)
	f.settings(Settings{})
	q.Set("/qubes-service/harden-network-interfaces", "") // is read again, and still off
	q.Set("/keyboard-layout", "de++")
	q.Set("/qubes-ip", "10.137.0.7")
	<-f.Changed()
	if s, problems := f.Take(); !s.PassThrough || len(problems) > 0 {
		t.Errorf("the first word after it is %+v, %q", s, problems)
	}
}

func TestTheSameWordTwiceIsOneToken(t *testing.T) {
	f := NewFollower(machine(t, None), nil)
	bad := ValueErrors{errors.New("bad")}
	for _, word := range []struct {
		name  string
		say   func()
		token bool
	}{
		{"the first settings, although nothing is set", func() { f.put(Settings{}) }, true},
		{"the same settings", func() { f.put(Settings{}) }, false},
		{"a problem", func() { f.keep(bad) }, true},
		{"the same problem", func() { f.keep(bad) }, false},
		{"its end", func() { f.put(Settings{}) }, true},
		{"other settings", func() { f.put(Settings{Harden: true}) }, true},
	} {
		word.say()
		if got := len(f.Changed()) > 0; got != word.token {
			t.Errorf("%s: a token is %t, want %t", word.name, got, word.token)
		}
		for len(f.Changed()) > 0 {
			<-f.Changed()
		}
	}
}
