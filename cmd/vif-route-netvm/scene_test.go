// The tests of the hotplug program: the real binary, built with the race detector, in a lab without daemons.
package main

import (
	"bytes"
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
)

// program is the one under test. The plain one has no race detector: for what runs it thousands of times.
var program, plainProgram string

func TestMain(m *testing.M) {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(withProgram(m))
}

func withProgram(m *testing.M) int {
	dir, err := os.MkdirTemp("", "vif-route-netvm-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program, plainProgram = filepath.Join(dir, "vif-route-netvm"), filepath.Join(dir, "plain")
	// The race detector lets a program wait a second at its end for more races.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, args := range [][]string{{"-race", "-o", program}, {"-o", plainProgram}} {
		if out, err := exec.Command("go", append(append([]string{"build"}, args...), ".")...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// patience bounds a lab's whole life.
const patience = 4 * time.Minute

// What the lab's configuration says of all vifs.
var (
	gateway4 = netip.MustParseAddr("10.137.0.6")
	gateway6 = netip.MustParseAddr("fd09:24ef:4179::a89:6")
)

// scene is a lab whose AppVMs are plugged in by the tests.
type scene struct {
	*lab.Lab
	t   *testing.T
	ctx context.Context
}

// overBackends runs a test over each backend, each time in a lab of its own.
func overBackends(t *testing.T, test func(*scene)) {
	for _, b := range []lab.Backend{lab.NFTables, lab.IPTablesNFT, lab.IPTablesLegacy} {
		t.Run(string(b), func(t *testing.T) { test(open(t, lab.Options{Backend: b})) })
	}
}

func open(t *testing.T, o lab.Options) *scene {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	if o.VifRoute == "" {
		o.VifRoute = program
	}
	o.Bare = true
	l, err := lab.New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return &scene{Lab: l, t: t, ctx: ctx}
}

// with is the scene for a subtest.
func (s *scene) with(t *testing.T) *scene { return &scene{s.Lab, t, s.ctx} }

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// attach plugs AppVMs in and brings their vifs up.
func (s *scene) attach(appVMs ...*lab.AppVM) {
	s.t.Helper()
	for _, a := range appVMs {
		s.must(a.Attach(s.ctx))
	}
}

// netvm runs a shell command in the netvm and returns what it printed.
func (s *scene) netvm(command string) string {
	s.t.Helper()
	out, err := s.NetVM.Run(s.ctx, "sh", "-ec", command)
	s.must(err)
	return out
}

// hotplug runs the program, as Xen does, and wants it to succeed without a word.
func (s *scene) hotplug(command string, c lab.Card, environment ...string) {
	s.t.Helper()
	if code, said := s.try(s.NetVM.HotplugCommand(s.ctx, command, c), environment...); code != 0 || said != "" {
		s.t.Errorf("%s of %s: exit code %d, said %q; want 0, without a word", command, c.Name(), code, said)
	}
}

// try runs a prepared program to its end, with more in its environment.
func (s *scene) try(cmd *exec.Cmd, environment ...string) (code int, said string) {
	s.t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(cmd.Env, environment...)
	s.must(s.NetVM.Start(cmd))
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	if strings.Contains(out.String(), "DATA RACE") {
		s.t.Errorf("the program has a data race:\n%s", out.String())
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// configure writes a configuration that differs from the lab's in some lines, and returns the variable that names it.
func (s *scene) configure(replacements ...string) string {
	s.t.Helper()
	text, err := os.ReadFile(s.NetVM.NetvmdConfig())
	s.must(err)
	changed := string(text)
	for i := 0; i+1 < len(replacements); i += 2 {
		if !strings.Contains(changed, replacements[i]) {
			s.t.Fatalf("the lab's configuration has no %q", replacements[i])
		}
		changed = strings.ReplaceAll(changed, replacements[i], replacements[i+1])
	}
	path := filepath.Join(s.t.TempDir(), "netvmd.toml")
	s.must(os.WriteFile(path, []byte(changed), 0o600))
	return "NETVMD_CONFIG=" + path
}

// status is what the toolstack reads of how it went.
func (s *scene) status(c lab.Card) (status, failure string) {
	status, _ = s.NetVM.XenStore.Get(c.Nodes() + "/hotplug-status")
	failure, _ = s.NetVM.XenStore.Get(c.Nodes() + "/hotplug-error")
	return status, failure
}
