package main

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/dbus"
	"netvmd/internal/lab"
)

// Exit codes of netvmctl.
const (
	exitNotRunning = 3
	exitNotAllowed = 4 // for who may not do that
)

// busError is the name of the error that a call was answered with; "" = it was none.
func busError(err error) string {
	var e godbus.Error
	if errors.As(err, &e) {
		return e.Name
	}
	return ""
}

// asker is a connection to the bus that belongs to a user and ends with the test.
func (s *scene) asker(u lab.User) *godbus.Conn {
	s.t.Helper()
	conn, err := s.NetVM.BusAs(u)
	s.must(err)
	s.t.Cleanup(func() { _ = conn.Close() }) // every call was answered
	return conn
}

// calls are those that change something; each may be made again.
var calls = map[string][]any{
	"Refresh": nil, "SetDnsOverride": {[]string{"192.0.2.55"}, false}, "ClearDnsOverride": nil,
}

// call calls a method of netvmd's.
func call(ctx context.Context, conn *godbus.Conn, method string) error {
	return conn.Object(dbus.Name, dbus.Path).CallWithContext(ctx, dbus.Interface+"."+method, 0, calls[method]...).Err
}

// commands are the same on the command line, but for the override, which is of the lasting kind: the other one holds.
var commands = [][]string{{"dns", "refresh"}, {"dns", "set", "--persistent", "192.0.2.55"}, {"dns", "clear"}}

// mayChange checks that a user may do all that changes something, or nothing of it.
func (s *scene) mayChange(u lab.User, allowed bool) {
	s.t.Helper()
	conn, want := s.asker(u), dbus.Interface+".Error.AccessDenied"
	if allowed {
		want = ""
	}
	for _, method := range []string{"Refresh", "SetDnsOverride", "ClearDnsOverride"} {
		if err := call(s.ctx, conn, method); busError(err) != want || (err == nil) != allowed {
			s.t.Errorf("%s as %s: %v; want %q", method, u.Name, err, want)
		}
	}
	for _, args := range commands {
		out, code := s.ctl(u, args...)
		if code != map[bool]int{false: exitNotAllowed}[allowed] {
			s.t.Errorf("netvmctl %q as %s: exit code %d; it says %s", args, u.Name, code, out)
		}
	}
}

// ctl runs netvmctl as a user, and returns all that it printed and its exit code.
func (s *scene) ctl(u lab.User, args ...string) (string, int) {
	s.t.Helper()
	cmd := s.NetVM.CommandAs(s.ctx, u, netvmctl, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	s.must(s.NetVM.Start(cmd))
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// Who may change AppVM DNS, while polkit comes, goes and hangs: every step begins where the one before ended.
func TestWhoMayChangeAppVMDNS(t *testing.T) {
	s := open(t, lab.Options{})
	h := s.Home.Resolvers
	s.start()
	s.nmcli("connection", "up", "home")
	s.leads(h[0], h[1])
	step := s.step
	unchanged := func(s *scene) {
		s.t.Helper()
		if status := s.leads(h[0], h[1]); len(status.DNSOverrides) > 0 {
			s.t.Errorf("overrides %+v", status.DNSOverrides)
		}
	}
	step("without polkit root alone", func(s *scene) {
		s.mayChange(lab.Nobody, false)
		unchanged(s)
		s.mayChange(lab.RootUser, true)
	})
	step("with polkit and a rule that user too", func(s *scene) {
		s.must(s.NetVM.StartPolkit(s.ctx, lab.AllowUser(lab.Nobody)))
		s.mayChange(lab.Nobody, true)
		conn, err := s.NetVM.BusAs(lab.Nobody)
		s.must(err)
		s.must(call(s.ctx, conn, "SetDnsOverride"))
		if status := s.leads(h[2], h[2]); status.DNSSource != "override" {
			s.t.Errorf("the source is %s: %s", status.DNSSource, status.DNSReason)
		}
		s.must(conn.Close()) // who leaves takes the override along
		unchanged(s)
	})
	step("with polkit and no rule for that user root alone", func(s *scene) {
		s.must(s.NetVM.StopPolkit(s.ctx))
		s.must(s.NetVM.StartPolkit(s.ctx, lab.AllowUser(lab.User{Name: "daemon"})))
		s.mayChange(lab.Nobody, false)
		s.mayChange(lab.RootUser, true)
	})
	step("a polkit that hangs holds up nobody but who needs it", hangingPolkit)
	step("after polkit has gone root alone", func(s *scene) {
		s.must(s.NetVM.StopPolkit(s.ctx))
		s.mayChange(lab.Nobody, false)
		s.mayChange(lab.RootUser, true)
	})
}

// promptly is how soon what polkit has no part in is done while polkit hangs. It takes milliseconds.
const promptly = 2 * time.Second

// hangingPolkit stops polkitd in the middle of its work.
func hangingPolkit(s *scene) {
	h := s.Home.Resolvers
	s.must(s.NetVM.Polkit().Signal(syscall.SIGSTOP))
	user, answered := s.asker(lab.Nobody), make(chan error, 1)
	go func() { answered <- call(s.ctx, user, "Refresh") }()

	soon, cancel := context.WithTimeout(s.ctx, promptly)
	defer cancel()
	s.must(lab.Call(soon, user, dbus.Interface+".GetStatistics"))
	s.must(call(soon, s.asker(lab.RootUser), "Refresh"))
	s.must(s.NetVM.SetResolvers(soon, s.Home.Device, h[1]))
	_, err := s.NetVM.AwaitTargets(soon, h[1], h[1])
	s.must(err)
	s.reaches(h[1], h[1])
	select {
	case err := <-answered:
		s.t.Errorf("polkit hangs, and who needs it was answered: %v", err)
	default:
	}
	s.must(s.NetVM.Polkit().Signal(syscall.SIGCONT))
	select {
	case err := <-answered:
		if busError(err) != dbus.Interface+".Error.AccessDenied" {
			s.t.Errorf("who waited for polkit: %v", err)
		}
	case <-soon.Done():
		s.t.Error("polkit goes on, and who waited for it is not answered")
	}
}
