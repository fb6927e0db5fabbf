// The end-to-end tests: the real netvmd in a lab with a real NetworkManager, dbus-daemon, dnsmasq and kernel.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"netvmd/internal/lab"
	"netvmd/internal/netvm"
)

// The programs under test, built with the race detector like the tests themselves.
var program, vifRoute, netvmctl string

func TestMain(m *testing.M) {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(withPrograms(m))
}

func withPrograms(m *testing.M) int {
	dir, err := os.MkdirTemp("", "netvmd-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // users without rights run them too
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	program, vifRoute, netvmctl = filepath.Join(dir, "netvmd"), filepath.Join(dir, "vif-route-netvm"), filepath.Join(dir, "netvmctl")
	build := exec.Command("go", "build", "-race", "-o", dir, ".", "../vif-route-netvm", "../netvmctl")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

const (
	// patience bounds a lab's whole life: every wait in it is for an event and ends when the event comes.
	patience = 90 * time.Second
)

var none netip.Addr

// scene is a lab with a netvmd, whose log is shown when the test fails.
type scene struct {
	*lab.Lab
	t   *testing.T
	ctx context.Context
}

func open(t *testing.T, o lab.Options) *scene {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	o.VifRoute = vifRoute
	if o.Netvmd == "" {
		o.Netvmd = program
	}
	l, err := lab.New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{Lab: l, t: t, ctx: ctx}
	t.Cleanup(func() {
		if t.Failed() {
			out, err := l.NetVM.Run(context.Background(), "sh", "-c", "nmcli -t device; nmcli device show; nmcli connection; cat /etc/resolv.conf")
			t.Logf("NetworkManager says (%v):\n%s", err, out)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		logs, err := lab.Logs()
		if err != nil {
			t.Error(err)
		}
		if strings.Contains(logs["netvmd"], "DATA RACE") {
			t.Error("netvmd has a data race")
		}
		if t.Failed() {
			t.Logf("netvmd's log:\n%s", logs["netvmd"])
			t.Logf("NetworkManager's log:\n%s", logs["NetworkManager"])
		}
		if err := lab.ClearLogs(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// with is the scene for a subtest.
func (s *scene) with(t *testing.T) *scene { return &scene{s.Lab, t, s.ctx} }

// step is a subtest that begins where the one before ended: without that one there is nothing to begin with.
func (s *scene) step(name string, f func(s *scene)) {
	s.t.Helper()
	if !s.t.Run(name, func(t *testing.T) { f(s.with(t)) }) {
		s.t.FailNow()
	}
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) start() {
	s.t.Helper()
	s.must(s.NetVM.StartNetvmd(s.ctx))
}

func (s *scene) nmcli(args ...string) {
	s.t.Helper()
	s.must(s.NetVM.NMCLI(s.ctx, args...))
}

// await waits until netvmd says that each virtual address, in order, leads there; none = unserved.
func (s *scene) await(targets ...netip.Addr) netvm.Status {
	s.t.Helper()
	r, err := s.NetVM.AwaitTargets(s.ctx, targets...)
	s.must(err)
	return r
}

// reaches checks which resolvers answer an AppVM at its virtual addresses, over UDP and TCP; none = refused.
func (s *scene) reaches(want ...netip.Addr) {
	s.t.Helper()
	for i, w := range want {
		for _, q := range []lab.Question{{}, {TCP: true}} {
			a, err := s.Work.Ask(s.ctx, lab.Virtual4[i], q)
			switch {
			case w == none && !errors.Is(err, lab.ErrRefused):
				s.t.Errorf("%+v to %s: answered by %s, %v; want a refusal", q, lab.Virtual4[i], a.Who, err)
			case w != none && (err != nil || a.Who != w):
				s.t.Errorf("%+v to %s: answered by %s, %v; want %s", q, lab.Virtual4[i], a.Who, err, w)
			}
		}
	}
}

// leads is await and reaches: what netvmd says is what an AppVM sees.
func (s *scene) leads(targets ...netip.Addr) netvm.Status {
	s.t.Helper()
	r := s.await(targets...)
	s.reaches(targets...)
	return r
}

// state waits until netvmd says that this is how far the netvm gets.
func (s *scene) state(want string) {
	s.t.Helper()
	_, err := s.NetVM.Await(s.ctx, func(r netvm.Status) bool { return string(r.State) == want })
	s.must(err)
}

// configure rewrites netvmd.toml for a daemon that is started or reloaded next.
func (s *scene) configure(change func(text string) string) {
	s.t.Helper()
	text, err := os.ReadFile(s.NetVM.NetvmdConfig())
	s.must(err)
	s.must(os.WriteFile(s.NetVM.NetvmdConfig(), []byte(change(string(text))), 0o600))
}

// setDNS adds lines to the [dns] table.
func setDNS(lines string) func(string) string {
	return func(text string) string { return strings.Replace(text, "[dns]\n", "[dns]\n"+lines+"\n", 1) }
}

// onDriftWarn leaves what others change in the rules.
func onDriftWarn(text string) string {
	return strings.Replace(text, "[firewall]\n", "[firewall]\non_drift = \"warn\"\n", 1)
}

// awaitLog waits until a line of netvmd's log since the mark contains all the words.
func (s *scene) awaitLog(mark int, words ...string) string {
	s.t.Helper()
	line, err := s.NetVM.Netvmd().AwaitLog(s.ctx, mark, words...)
	s.must(err)
	return line
}

var backends = []lab.Backend{lab.NFTables, lab.IPTablesNFT, lab.IPTablesLegacy}

// overBackends runs a test in a lab of each backend.
func overBackends(t *testing.T, test func(*scene)) {
	for _, b := range backends {
		t.Run(string(b), func(t *testing.T) { test(open(t, lab.Options{Backend: b})) })
	}
}

// runProgram runs a program to its end and returns what it printed and its exit code.
func runProgram(name string, args ...string) (out string, code int, err error) {
	printed, err := exec.Command(name, args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(printed), exit.ExitCode(), nil
	}
	return string(printed), 0, err
}
