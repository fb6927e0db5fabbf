package override

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"netvmd/internal/netvm"
)

// dirs are the folders of one netvmd after the other.
type dirs struct {
	t              *testing.T
	state, runtime string
}

func newDirs(t *testing.T) dirs { return dirs{t, t.TempDir(), t.TempDir()} }

func (d dirs) open() *Stack { return Open(d.state, d.runtime) }

func (d dirs) put(name, text string) {
	d.t.Helper()
	dir := d.runtime
	if name == persistentFile {
		dir = d.state
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

// names are all files, those that were left half-written too.
func (d dirs) names() string {
	d.t.Helper()
	var out []string
	for _, dir := range []string{d.state, d.runtime} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			d.t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, e.Name())
		}
	}
	return strings.Join(out, " ")
}

// of is an override: "holder server…", persistent when the holder is "!".
func of(words string) netvm.Override {
	f := strings.Fields(words)
	o := netvm.Override{Holder: f[0], By: "test of " + f[0], Persistent: f[0] == "!"}
	for _, a := range f[1:] {
		o.Servers = append(o.Servers, netip.MustParseAddr(a))
	}
	return o
}

func text(s *Stack) string {
	var out []string
	for _, o := range s.List() {
		line := o.Holder
		if o.Persistent {
			line = "!"
		}
		for _, a := range o.Servers {
			line += " " + a.String()
		}
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, s *Stack, want string) {
	t.Helper()
	if got := text(s); got != want {
		t.Errorf("in force are %q, want %q", got, want)
	}
}

func TestOrder(t *testing.T) {
	for _, tc := range []struct {
		name  string
		steps string // "set holder server…", "clear holder", "left holder", one each
		want  string
	}{
		{"nothing was set", "", ""},
		{"the newest is on top", "set :1 192.0.2.1, set :2 192.0.2.2, set :3 192.0.2.3", ":3 192.0.2.3; :2 192.0.2.2; :1 192.0.2.1"},
		{"setting again moves to the top", "set :1 192.0.2.1, set :2 192.0.2.2, set :1 192.0.2.9", ":1 192.0.2.9; :2 192.0.2.2"},
		{"the one before comes back when the newest leaves", "set :1 192.0.2.1, set :2 192.0.2.2, left :2", ":1 192.0.2.1"},
		{"one below the top leaves unnoticed", "set :1 192.0.2.1, set :2 192.0.2.2, left :1", ":2 192.0.2.2"},
		{"a stranger that leaves changes nothing", "set :1 192.0.2.1, left :2", ":1 192.0.2.1"},
		{"a persistent one replaces the persistent one", "set ! 192.0.2.1, set :2 192.0.2.2, set ! 192.0.2.3", "! 192.0.2.3; :2 192.0.2.2"},
		{"a living one on top of the persistent one", "set ! 192.0.2.1, set :2 192.0.2.2", ":2 192.0.2.2; ! 192.0.2.1"},
		{"clearing takes the caller's own", "set ! 192.0.2.1, set :2 192.0.2.2, clear :2", "! 192.0.2.1"},
		{"clearing without an own one takes the persistent one", "set ! 192.0.2.1, set :2 192.0.2.2, clear :3", ":2 192.0.2.2"},
		{"clearing without either does nothing", "set :2 192.0.2.2, clear :3", ":2 192.0.2.2"},
		{"nobody's leaving ends the persistent one", "set ! 192.0.2.1, left !, left :1, left ", "! 192.0.2.1"},
		{"an IPv4 address written as IPv6 is IPv4", "set :1 ::ffff:192.0.2.1 2001:db8::1", ":1 192.0.2.1 2001:db8::1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDirs(t)
			s := d.open()
			for _, step := range strings.Split(tc.steps, ", ") {
				verb, rest, _ := strings.Cut(step, " ")
				switch verb {
				case "set":
					must(t, s.Set(of(rest)))
				case "clear":
					_, err := s.Clear(rest)
					must(t, err)
				case "left":
					s.Left(rest)
				}
			}
			expect(t, s, tc.want)
			expect(t, d.open(), tc.want) // as the next netvmd reads it
		})
	}
}

func TestPersistentOneReplacesTheCallersLivingOne(t *testing.T) {
	d := newDirs(t)
	s := d.open()
	must(t, s.Set(of(":1 192.0.2.1")))
	o := of(":1 192.0.2.2")
	o.Persistent = true
	must(t, s.Set(o))
	expect(t, s, "! 192.0.2.2")
	expect(t, d.open(), "! 192.0.2.2")
}

func TestChangedTellsWhatHappened(t *testing.T) {
	s := newDirs(t).open()
	must(t, s.Set(of(":1 192.0.2.1")))
	must(t, s.Set(of("! 192.0.2.1")))
	for i, want := range []bool{true, true, false} { // the own one, the persistent one, none
		if changed, err := s.Clear(":1"); changed != want || err != nil {
			t.Errorf("%d: %t, %v", i, changed, err)
		}
	}
	must(t, s.Set(of(":1 192.0.2.1")))
	if !s.Left(":1") || s.Left(":1") {
		t.Error("a holder leaves once")
	}
}

func TestHoldersAreThoseWhoseLeavingEndsAnOverride(t *testing.T) {
	s := newDirs(t).open()
	for _, o := range []string{":1 192.0.2.1", "! 192.0.2.2", ":3 192.0.2.3"} {
		must(t, s.Set(of(o)))
	}
	if got := s.Holders(); !reflect.DeepEqual(got, []string{":3", ":1"}) {
		t.Errorf("%q", got)
	}
}

func TestOrderIsNotTheClocks(t *testing.T) {
	d := newDirs(t)
	s := d.open()
	late, early := of("! 192.0.2.1"), of(":2 192.0.2.2")
	late.Since, early.Since = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	must(t, s.Set(late))
	must(t, s.Set(early)) // the clock was set back
	expect(t, s, ":2 192.0.2.2; ! 192.0.2.1")
	s = d.open()
	expect(t, s, ":2 192.0.2.2; ! 192.0.2.1")
	if got := s.List()[1].Since; !got.Equal(late.Since) {
		t.Errorf("since %s", got)
	}
	must(t, s.Set(of(":3 192.0.2.3")))
	expect(t, d.open(), ":3 192.0.2.3; :2 192.0.2.2; ! 192.0.2.1")
}

func TestEverythingOfAnOverrideIsKept(t *testing.T) {
	d := newDirs(t)
	s := d.open()
	must(t, s.Set(of(":1 192.0.2.1 2001:db8::1")))
	must(t, s.Set(of("! 192.0.2.2")))
	if got, want := d.open().List(), s.List(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if since := s.List()[0].Since; time.Since(since) > time.Minute {
		t.Errorf("since %s", since)
	}
	must(t, s.Set(netvm.Override{Holder: ":5", By: "evil\nname \xff" + strings.Repeat("x", 1000), Servers: of(": 192.0.2.1").Servers}))
	if by := s.List()[0].By; strings.Contains(by, "\n") || !utf8.ValidString(by) || len(by) > maxName || by != d.open().List()[0].By {
		t.Errorf("by %q", by)
	}
}

func TestRefused(t *testing.T) {
	nine := ":1"
	for i := range MaxServers + 1 {
		nine += fmt.Sprintf(" 192.0.2.%d", i+1)
	}
	for _, tc := range []struct{ name, set, says string }{
		{"no server", ":1", "ClearDnsOverride"},
		{"too many servers", nine, "at most 8"},
		{"a server twice", ":1 192.0.2.1 ::ffff:192.0.2.1", "192.0.2.1 is named twice"},
		{"a zone", ":1 2001:db8::1%eth0", "2001:db8::1%eth0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDirs(t)
			s := d.open()
			err := s.Set(of(tc.set))
			var invalid netvm.InvalidError
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, want an InvalidError with %q", err, tc.says)
			}
			expect(t, s, "")
			if names := d.names(); names != "" {
				t.Errorf("files %s", names)
			}
		})
	}
	if err := newDirs(t).open().Set(netvm.Override{Servers: of(": 192.0.2.1").Servers}); err == nil {
		t.Error("nobody holds it, and it is not persistent")
	}
}

func TestNoMoreHoldersThanMaxHolders(t *testing.T) {
	d := newDirs(t)
	s := d.open()
	for i := range MaxHolders {
		must(t, s.Set(of(fmt.Sprintf(":%d 192.0.2.1", i))))
	}
	before := text(s)
	if err := s.Set(of(":1000 192.0.2.1")); !errors.Is(err, netvm.ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
	expect(t, s, before)
	must(t, s.Set(of(":7 192.0.2.7"))) // one that is there may set again
	must(t, s.Set(of("! 192.0.2.1")))  // and the persistent one has a place of its own
	expect(t, d.open(), text(s))       // the file takes as many
	if s.Left(":3"); s.Set(of(":1000 192.0.2.1")) != nil {
		t.Error("a place that was left is not free")
	}
}
