package main

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/dbus"
	"netvmd/internal/lab"
	"netvmd/internal/netvm"
)

// caller connects a program of its own to the bus.
func (s *scene) caller() *dbus.Client {
	s.t.Helper()
	c, err := dbus.Connect(s.ctx)
	s.must(err)
	return c
}

// atHome is a netvm on its network at home, which announced the first two of these resolvers.
func atHome(t *testing.T) (s *scene, h []netip.Addr) {
	t.Helper()
	s = open(t, lab.Options{})
	h = s.Home.Resolvers
	s.start()
	s.nmcli("connection", "up", "home")
	s.leads(h[0], h[1])
	return s, h
}

// overridden has c set an override of one server, and checks that AppVMs are with it when the call has returned.
func (s *scene) overridden(c *dbus.Client, server netip.Addr, persistent bool) {
	s.t.Helper()
	s.must(c.SetDNSOverride(s.ctx, []netip.Addr{server}, persistent))
	s.reaches(server, server)
	if r := s.await(server, server); r.DNSSource != "override" {
		s.t.Errorf("source %s: %s", r.DNSSource, r.DNSReason)
	}
}

// rivals are two callers with an override each, the second on top; persistent is said of the first one's.
func (s *scene) rivals(below, above netip.Addr, persistent bool) (first, second *dbus.Client) {
	s.t.Helper()
	first, second = s.caller(), s.caller()
	s.overridden(first, below, persistent)
	s.overridden(second, above, false)
	s.overrides(2)
	return first, second
}

// overrides waits until that many overrides are there.
func (s *scene) overrides(n int) netvm.Status {
	s.t.Helper()
	r, err := s.NetVM.Await(s.ctx, func(r netvm.Status) bool { return len(r.DNSOverrides) == n })
	s.must(err)
	return r
}

// The life of overrides: every step begins where the one before ended, with h[0] and h[1] announced by the uplink.
func TestOverrides(t *testing.T) {
	overBackends(t, func(s *scene) {
		h := s.Home.Resolvers
		step := s.step
		s.start()
		s.nmcli("connection", "up", "home")
		s.leads(h[0], h[1])
		step("it is in the kernel when the call returns, and ends with its caller", func(s *scene) {
			c := s.caller()
			s.overridden(c, h[2], false)
			s.must(c.Close())
			s.leads(h[0], h[1])
		})
		step("its caller takes it back", func(s *scene) {
			c := s.caller()
			s.overridden(c, h[2], false)
			s.must(c.ClearDNSOverride(s.ctx))
			s.reaches(h[0], h[1])
			s.must(c.Close())
		})
		step("of two the newest is in force, then the one before", func(s *scene) {
			first, second := s.rivals(h[2], h[1], false)
			s.must(second.Close())
			s.leads(h[2], h[2])
			s.must(first.Close())
			s.leads(h[0], h[1])
		})
		step("one below leaves unnoticed", func(s *scene) {
			first, second := s.rivals(h[2], h[1], false)
			s.must(first.Close())
			s.overrides(1)
			s.leads(h[1], h[1])
			s.must(second.Close())
			s.leads(h[0], h[1])
		})
		step("servers that can be no resolver change nothing", func(s *scene) {
			c := s.caller()
			for _, bad := range []netip.Addr{s.Home.NetVM, lab.Virtual4[0], netip.MustParseAddr("127.0.0.1")} {
				err := c.SetDNSOverride(s.ctx, []netip.Addr{h[2], bad}, false)
				var refused dbus.Error
				if !errors.As(err, &refused) || refused.Name != dbus.InvalidArguments || !strings.Contains(err.Error(), bad.String()) {
					s.t.Errorf("%s: %v", bad, err)
				}
			}
			s.must(c.Close())
			s.leads(h[0], h[1])
		})
		step("a configuration that is read again leaves it in force", func(s *scene) {
			c := s.caller()
			s.overridden(c, h[2], false)
			mark := s.NetVM.Netvmd().LogLength()
			s.must(s.NetVM.Netvmd().Signal(syscall.SIGHUP))
			s.awaitLog(mark, "the configuration was read again")
			s.overrides(1)
			s.leads(h[2], h[2])
			s.must(c.Close())
			s.leads(h[0], h[1])
		})
		step("a persistent one survives its caller and netvmd's death", func(s *scene) {
			c := s.caller()
			s.overridden(c, h[2], true)
			s.must(c.Close())
			s.restarted(h[2])
			if r := s.overrides(1); !r.DNSOverrides[0].Persistent {
				s.t.Errorf("%+v", r.DNSOverrides)
			}
			c = s.caller()
			s.must(c.ClearDNSOverride(s.ctx)) // another one than set it
			s.must(c.Close())
			s.leads(h[0], h[1])
		})
		step("that of a living caller survives netvmd's death", func(s *scene) {
			below, c := s.rivals(h[1], h[2], true)
			s.restarted(h[2])
			s.must(c.Close()) // and ends as before
			s.leads(h[1], h[1])
			s.must(below.ClearDNSOverride(s.ctx))
			s.must(below.Close())
			s.leads(h[0], h[1])
		})
		step("that of a caller which leaves while it is set ends", func(s *scene) {
			for range 20 {
				conn, err := s.NetVM.Bus()
				s.must(err)
				conn.Object(dbus.Name, dbus.Path).Go(dbus.Interface+".SetDnsOverride", godbus.FlagNoReplyExpected, nil,
					[]string{h[2].String()}, false)
				s.must(conn.Close())
			}
			c := s.caller() // whose turn comes after theirs
			s.overridden(c, h[2], false)
			s.must(c.Close())
			s.overrides(0)
			s.leads(h[0], h[1])
		})
		step("that of a caller which left meanwhile ends", func(s *scene) {
			c := s.caller()
			s.overridden(c, h[2], false)
			s.must(s.NetVM.KillNetvmd(s.ctx))
			s.must(c.Close())
			s.reaches(h[2], h[2]) // on the last good rules
			s.start()
			s.leads(h[0], h[1])
			s.overrides(0)
			if _, err := os.Stat(filepath.Join(s.NetVM.RuntimeDir(), "overrides.json")); err == nil {
				s.t.Error("its file is still there")
			}
		})
	})
}

// The names of a bus that begins anew are those of the one before, given to others.
func TestOverridesEndWithTheBusOfTheirCallers(t *testing.T) {
	s, h := atHome(t)
	c := s.caller()
	s.overridden(c, h[2], false)
	s.must(s.NetVM.KillNetvmd(s.ctx))
	s.must(s.NetVM.KillBus(s.ctx))
	s.must(s.NetVM.KillNetworkManager(s.ctx)) // which does not live through the loss of its bus
	s.must(s.NetVM.StartBus(s.ctx))
	for range 100 { // more than there were
		stranger, err := s.NetVM.Bus()
		s.must(err)
		defer stranger.Close()
	}
	s.must(s.NetVM.StartNetworkManager(s.ctx))
	s.reaches(h[2], h[2]) // on the last good rules
	s.start()
	s.overrides(0)
	s.leads(h[0], h[1])

	second := s.caller()
	s.overridden(second, h[2], false)
	s.must(s.NetVM.KillBus(s.ctx))
	s.reaches(h[2], h[2])
	s.must(s.NetVM.KillNetworkManager(s.ctx))
	s.must(s.NetVM.StartBus(s.ctx))
	s.must(s.NetVM.StartNetworkManager(s.ctx))
	s.overrides(0)
	s.leads(h[0], h[1])
}

// restarted kills netvmd and starts it again, while an AppVM asks on: only that resolver answers it, and always does.
func (s *scene) restarted(resolver netip.Addr) {
	s.t.Helper()
	loop := s.Work.AskLoop(s.ctx, lab.Virtual4[0], lab.Question{}, 0)
	s.must(s.NetVM.KillNetvmd(s.ctx))
	s.start()
	s.leads(resolver, resolver)
	tally := lab.Count(loop.Stop())
	if tally.By[resolver] != tally.Asked || tally.Asked == 0 {
		s.t.Errorf("meanwhile: %+v", tally)
	}
}

// As after a boot: no rules are there yet, and the persistent override is the first that comes.
func TestPersistentOverrideIsInForceBeforeAnyOtherResolver(t *testing.T) {
	s, h := atHome(t)
	c := s.caller()
	s.overridden(c, h[2], true)
	s.must(c.Close())
	s.must(s.NetVM.TermNetvmd(s.ctx))
	_, err := s.NetVM.Run(s.ctx, "nft", "flush ruleset")
	s.must(err)
	loop := s.Work.AskLoop(s.ctx, lab.Virtual4[0], lab.Question{}, 0)
	s.start()
	s.leads(h[2], h[2])
	if tally := lab.Count(loop.Stop()); tally.By[h[0]]+tally.By[h[1]] > 0 {
		t.Errorf("queries went to the uplink's resolvers: %+v", tally)
	}
}

func TestBrokenOverrideFileIsAProblemAndTheNetvmWorks(t *testing.T) {
	s := open(t, lab.Options{})
	h := s.Home.Resolvers
	path := filepath.Join(s.NetVM.StateDir(), "override.json")
	s.must(os.MkdirAll(s.NetVM.StateDir(), 0o755))
	s.must(os.WriteFile(path, []byte(`{"overrides": [{"servers": ["192.0.2`), 0o644))
	s.start()
	s.nmcli("connection", "up", "home")
	s.leads(h[0], h[1])
	s.awaitProblem(path, "netvmctl dns clear")
	c := s.caller()
	s.must(c.ClearDNSOverride(s.ctx))
	s.must(c.Close())
	s.awaitProblem()
	if _, err := os.Stat(path); err == nil {
		t.Error("it is still there")
	}
}

func TestRefreshMendsAndTells(t *testing.T) {
	s := open(t, lab.Options{})
	s.configure(onDriftWarn)
	h := s.Home.Resolvers
	s.start()
	s.nmcli("connection", "up", "home")
	s.leads(h[0], h[1])
	c := s.caller()
	defer func() { s.must(c.Close()) }()
	refresh := func(want bool) {
		s.t.Helper()
		changed, err := c.Refresh(s.ctx)
		if err != nil || changed != want {
			t.Errorf("changed %t, %v; want %t", changed, err, want)
		}
	}
	refresh(false)
	_, err := s.NetVM.Run(s.ctx, "nft", "delete element ip netvmd dns-targets { 10.139.1.1 }")
	s.must(err)
	refresh(true)
	s.reaches(h[0], h[1])
	refresh(false)
}

func TestRefreshNamesASourceThatIsSilentAndAppliesTheRest(t *testing.T) {
	s, h := atHome(t)
	c := s.caller()
	defer func() { s.must(c.Close()) }()
	s.must(s.NetVM.NetworkManager().Signal(syscall.SIGSTOP))
	_, err := c.Refresh(s.ctx)
	var failed dbus.Error
	if !errors.As(err, &failed) || failed.Name != dbus.Timeout || !strings.Contains(err.Error(), "no answer from NetworkManager (its uplinks)") {
		t.Errorf("%v", err)
	}
	s.reaches(h[0], h[1])
	s.overridden(c, h[2], false) // and nobody else waits for it
	s.must(s.NetVM.NetworkManager().Signal(syscall.SIGCONT))
	if _, err := c.Refresh(s.ctx); err != nil {
		t.Errorf("NetworkManager answers again: %v", err)
	}
}

func TestPersistentOverrideThatCannotBeKeptIsRefused(t *testing.T) {
	s, h := atHome(t)
	s.must(os.MkdirAll(s.NetVM.StateDir(), 0o755))
	_, err := s.NetVM.Run(s.ctx, "mount", "-t", "tmpfs", "-o", "ro", "tmpfs", s.NetVM.StateDir())
	s.must(err)
	s.must(s.NetVM.KillNetvmd(s.ctx))
	s.start() // which sees the mount
	c := s.caller()
	defer func() { s.must(c.Close()) }()
	err = c.SetDNSOverride(s.ctx, h[2:3], true)
	var failed dbus.Error
	if !errors.As(err, &failed) || failed.Name != dbus.Failed || !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("%v", err)
	}
	s.overrides(0)
	s.leads(h[0], h[1])
	s.overridden(c, h[2], false) // for which no disk is needed
}
