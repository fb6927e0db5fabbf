package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/dbus"
	"netvmd/internal/lab"
	"netvmd/internal/netvm"
)

const (
	floodRate        = 1000 // calls a second
	floodConnections = 50
	// floodChanges is how many times the resolvers change with and without a flood: a multiple of three, so that they end
	// as they began.
	floodChanges = 6
	// changeWithin is how soon a change must be in the kernel while a flood goes on: not only when that is over, on a
	// machine that is as busy as can be. That it is some milliseconds is the benchmark's business.
	changeWithin = 5 * time.Second
	// calmWithin is how soon after a flood the memory must be back: the Go runtime gives it back in steps.
	calmWithin = 20 * time.Second
	// floodLeaves is how much more memory netvmd may hold after a flood than before, in bytes.
	floodLeaves = 6 << 20
)

// plainNetvmd builds netvmd as it is installed: the race detector's memory says nothing about that of the program.
func plainNetvmd(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netvmd")
	build := exec.Command("go", "build", "-trimpath", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build netvmd: %v\n%s", err, out)
	}
	return path
}

func TestAFloodFromAUserWithoutRightsHarmsNobody(t *testing.T) {
	s := open(t, lab.Options{Netvmd: plainNetvmd(t), LogLevel: "info"})
	s.must(s.NetVM.StartPolkit(s.ctx, "")) // so that refusing costs as much as it can
	s.start()
	s.nmcli("connection", "up", "home-static")
	s.leads(s.Home.Resolvers[0], s.Home.Resolvers[1])
	quiet := s.changes()
	before := s.resident()
	flooded := append(s.flood(), s.flood()...)
	t.Logf("signal to kernel: %s without and %s with a flood", quiet, flooded)
	if worst := slices.Max(flooded); worst > changeWithin {
		t.Errorf("a change took %s", worst)
	}
	s.awaitCalm(before)
	status, err := s.NetVM.Status(s.ctx)
	s.must(err)
	if len(status.DNSOverrides) > 0 || status.State != netvm.Online {
		t.Errorf("afterwards: %+v", status)
	}
}

// changes lets the resolvers change some times, and returns how long each took from the signal to the kernel.
func (s *scene) changes() []time.Duration {
	s.t.Helper()
	watch := s.NetVM.Watch(s.ctx)
	defer watch.Close()
	h := s.Home.Resolvers
	var times []time.Duration
	for n := range floodChanges {
		next := []netip.Addr{h[(n+1)%3], h[(n+2)%3]} // never what is in force
		s.must(s.NetVM.SetResolvers(s.ctx, s.Home.Device, next...))
		status, err := watch.Await(s.ctx, lab.LeadsTo(next...))
		s.must(err)
		s.reaches(next...)
		times = append(times, status.ApplyTime)
	}
	return times
}

// flood lets users without rights do what they can while the resolvers change, and returns how long the changes took.
func (s *scene) flood() []time.Duration {
	s.t.Helper()
	deaf, err := s.NetVM.Deaf(lab.Nobody, floodRate)
	s.must(err)
	defer func() { _ = deaf.Close() }() // it waits for nothing
	flood, err := s.NetVM.Flood(s.ctx, lab.Nobody, floodRate, floodConnections)
	s.must(err)
	giants := s.giants()
	s.monstrous()
	times := s.changes()
	s.must(<-giants)
	tally, err := flood.Stop()
	s.must(err)
	s.t.Logf("%+v", tally)
	if tally.Lost > 0 || tally.Answered == 0 {
		s.t.Errorf("of %d calls %d were answered with what was asked for, %d never", tally.Called, tally.Answered, tally.Lost)
	}
	for name := range tally.Errors {
		if !strings.HasPrefix(name, "org.qubes_os.NetVM1.Error.") && !strings.HasPrefix(name, "org.freedesktop.DBus.Error.") {
			s.t.Errorf("a call failed: %s", name)
		}
	}
	return times
}

// giants makes calls with a million servers, meanwhile. Each must be answered with an error.
func (s *scene) giants() <-chan error {
	done := make(chan error, 1)
	go func() {
		const calls, servers = 3, 1_000_000
		answers, err := s.NetVM.CallWithGiants(s.ctx, lab.Nobody, calls, servers)
		if slices.Contains(answers, "") {
			err = errors.Join(err, fmt.Errorf("calls with %d servers are answered with %q", servers, answers))
		}
		done <- err
	}()
	return done
}

// monstrous makes calls that are too long, too deep or of other types. Each gets an answer, and that is an error.
func (s *scene) monstrous() {
	s.t.Helper()
	conn := s.asker(lab.Nobody)
	deep := godbus.MakeVariant("deep")
	for range 30 { // D-Bus allows 32 containers in each other
		deep = godbus.MakeVariant(deep)
	}
	const properties = "org.freedesktop.DBus.Properties."
	for what, call := range map[string]struct {
		method string
		args   []any
	}{
		"a name of 16 MiB":            {properties + "Get", []any{dbus.Interface, strings.Repeat("x", 16<<20)}},
		"many names where one is":     {properties + "Get", []any{make([]string, 10_000)}},
		"variants in variants":        {properties + "Set", []any{dbus.Interface, "State", deep}},
		"a variant where a list is":   {dbus.Interface + ".SetDnsOverride", []any{deep, false}},
		"arguments where none are":    {dbus.Interface + ".Refresh", []any{"now"}},
		"bytes instead of strings":    {dbus.Interface + ".SetDnsOverride", []any{make([]byte, 100<<10), true}},
		"no arguments where some are": {dbus.Interface + ".SetDnsOverride", nil},
	} {
		if err := lab.Call(s.ctx, conn, call.method, call.args...); busError(err) == "" {
			s.t.Errorf("%s: %v, want an error of the bus", what, err)
		}
	}
}

// resident is netvmd's memory, in bytes.
func (s *scene) resident() uint64 {
	s.t.Helper()
	usage, err := s.NetVM.Netvmd().Usage()
	s.must(err)
	return usage.Resident
}

// awaitCalm waits until netvmd holds no more memory than before, but for floodLeaves.
func (s *scene) awaitCalm(before uint64) {
	s.t.Helper()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	began := time.Now()
	for now := s.resident(); now > before+floodLeaves; now = s.resident() {
		if time.Since(began) > calmWithin {
			s.t.Errorf("%.1f MiB before the floods, %.1f MiB after them", float64(before)/(1<<20), float64(now)/(1<<20))
			return
		}
		<-look.C
	}
	s.t.Logf("memory: %.1f MiB before the floods, %.1f MiB %s after them", float64(before)/(1<<20), float64(s.resident())/(1<<20),
		time.Since(began).Round(time.Millisecond))
}
