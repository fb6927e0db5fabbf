package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	sdnotify "netvmd/internal/lab/notify"
)

// followed is a netvmctl uplink up --follow that runs.
type followed struct {
	*guest
	cmd   *exec.Cmd
	lines chan string // what it prints
	ready *sdnotify.Listener
}

// follow starts it, and waits until systemd would know that it is ready.
func (g *guest) follow() *followed {
	g.t.Helper()
	ready, err := sdnotify.Listen(filepath.Join(g.Dir, "notify"))
	g.must(err)
	out, in, err := os.Pipe()
	g.must(err)
	f := &followed{g, g.command("up", "eth0", "--follow", "--json"), make(chan string, 1024), ready}
	f.cmd.Stdout, f.cmd.Stderr = in, in
	f.cmd.Env = append(f.cmd.Env, "NOTIFY_SOCKET="+filepath.Join(g.Dir, "notify"))
	g.must(g.Start(f.cmd))
	g.must(in.Close())
	go func() {
		defer close(f.lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			f.lines <- scanner.Text()
		}
		_ = out.Close()
	}()
	g.t.Cleanup(func() {
		_ = f.cmd.Process.Kill() // unless it has ended
		ready.Close()
	})
	select {
	case <-ready.Ready():
	case <-g.ctx.Done():
		g.t.Fatal("it does not say that it is ready")
	}
	f.says(`"way":"` + g.way + `"`) // what it did before it was ready
	return f
}

// says waits for a line that has all the words.
func (f *followed) says(words ...string) {
	f.t.Helper()
	var before []string
	for {
		select {
		case line, open := <-f.lines:
			if before = append(before, line); !open {
				f.t.Fatalf("it ended without %q; it said\n%s", words, strings.Join(before, "\n"))
			}
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
				return
			}
		case <-f.ctx.Done():
			f.t.Fatalf("it did not say %q; it said\n%s", words, strings.Join(before, "\n"))
		}
	}
}

// ends asks it to end, and wants it to do so in order and without another change.
func (f *followed) ends() {
	f.t.Helper()
	before := f.dump()
	f.must(f.cmd.Process.Signal(syscall.SIGTERM))
	f.must(f.cmd.Wait())
	f.sameDump("after its end", before)
}

func TestAnUplinkIsFollowed(t *testing.T) {
	s := openForGuests(t)
	for i, way := range []string{"resolv.conf", "resolved", "networkmanager"} {
		s.step("by "+way, func(s *scene) {
			g := s.invite(way, 31+i)
			before := g.dump()
			f := g.follow()
			f.works()
			f.followsTheStore()
			if way != "resolv.conf" {
				f.followsTheService()
			}
			f.followsTheDevice()
			f.ends()
			g.works()
			g.follow().endsWhenItIsReverted()
			g.sameDump("down", before)
		})
	}
}

// endsWhenItIsReverted wants it to leave an interface alone that somebody has reverted.
func (f *followed) endsWhenItIsReverted() {
	f.t.Helper()
	f.uplink("down", "eth0")
	f.QubesDB.Set("/qubes-secondary-dns", "10.139.1.3")
	f.says("reverted by somebody else: it is not followed any more")
	f.must(f.cmd.Wait())
}

// followsTheStore changes keys and wants the change to be there, and a bad one to change nothing.
func (f *followed) followsTheStore() {
	f.t.Helper()
	f.QubesDB.Delete("/qubes-ip6")
	f.says("forgot the neighbour " + f.Gateway6.String())
	if is := f.dump(); strings.Contains(is, f.Address6.String()) {
		f.t.Errorf("its IPv6 address was taken away, and is there:\n%s", is)
	}
	f.QubesDB.Set("/qubes-ip6", f.Address6.String())
	f.says("set the neighbour " + f.Gateway6.String())
	f.works()
	before := f.dump()
	f.QubesDB.Set("/qubes-gateway", "10.137.0.300")
	f.says("the uplink stays as it is", "/qubes-gateway", "10.137.0.300")
	f.sameDump("after a bad key", before)
	f.QubesDB.Set("/qubes-gateway", f.Gateway.String())
	f.works()
}

// followsTheService ends the service of the way, and starts it again.
func (f *followed) followsTheService() {
	f.t.Helper()
	f.stopDaemon()
	f.says(`"way":"resolv.conf"`)
	f.works()
	f.startDaemon()
	f.says(`"way":"` + f.way + `"`)
	f.works()
	f.stopDaemon()
	f.startDaemon()
	f.works()
}

// followsTheDevice takes the card away and gives another one.
func (f *followed) followsTheDevice() {
	f.t.Helper()
	f.must(f.Detach(f.ctx))
	f.must(f.Plug(f.ctx))
	f.says("changes", "put into group 1")
	f.works()
}
