// The end-to-end tests: the real netvmd in a lab with a real NetworkManager, dbus-daemon, dnsmasq and kernel.
package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"netvmd/internal/lab"
)

// program is the netvmd under test, built with the race detector like the tests themselves.
var program string

func TestMain(m *testing.M) {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(withProgram(m))
}

func withProgram(m *testing.M) int {
	dir, err := os.MkdirTemp("", "netvmd-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "netvmd")
	build := exec.Command("go", "build", "-race", "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build netvmd: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// patience bounds a whole test: every wait in it is for an event and ends when the event comes.
const patience = 90 * time.Second

// scene is a lab with a running netvmd, whose logs are shown when the test fails.
type scene struct {
	*lab.Lab
	t   *testing.T
	ctx context.Context //nolint:containedctx // of one test
}

func open(t *testing.T, o lab.Options) *scene {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	o.Netvmd = program
	l, err := lab.New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{Lab: l, t: t, ctx: ctx}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			logs, err := lab.Logs()
			if err != nil {
				t.Error(err)
			}
			t.Logf("netvmd's log:\n%s", logs["netvmd"])
		}
	})
	return s
}

func (s *scene) start() {
	s.t.Helper()
	if err := s.NetVM.StartNetvmd(s.ctx); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) nmcli(args ...string) {
	s.t.Helper()
	if err := s.NetVM.NMCLI(s.ctx, args...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) await(targets ...netip.Addr) lab.Report {
	s.t.Helper()
	r, err := s.NetVM.AwaitTargets(s.ctx, targets...)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// asks checks which resolver answers an AppVM at a virtual address, over UDP and TCP.
func (s *scene) asks(virtual, want netip.Addr) {
	s.t.Helper()
	for _, q := range []lab.Question{{}, {TCP: true}} {
		a, err := s.Work.Ask(s.ctx, virtual, q)
		if err != nil || a.Who != want {
			s.t.Errorf("%+v to %s: answered by %s, %v; want %s", q, virtual, a.Who, err, want)
		}
	}
}

func TestDHCPBringsResolvers(t *testing.T) {
	s := open(t, lab.Options{})
	s.start()
	s.nmcli("connection", "up", "home")
	s.await(s.Home.Resolvers[0], s.Home.Resolvers[1])
	s.asks(lab.Virtual4[0], s.Home.Resolvers[0])
	s.asks(lab.Virtual4[1], s.Home.Resolvers[1])
}
