package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"netvmd/internal/lab"
	"netvmd/internal/netvm"
)

// The life of a netvm, over each backend: every step begins where the one before ended.
func TestAppVMDNSFollowsTheUplink(t *testing.T) {
	overBackends(t, func(s *scene) {
		h, o := s.Home.Resolvers, s.Office.Resolvers
		step := s.step
		s.start()
		step("without an uplink queries are refused", func(s *scene) {
			s.leads(none, none)
		})
		step("DHCP brings two resolvers", func(s *scene) {
			s.nmcli("connection", "up", "home")
			if r := s.leads(h[0], h[1]); r.DNSSource != "networkmanager" {
				s.t.Errorf("source %s", r.DNSSource)
			}
			s.state("online")
		})
		step("a renewed lease brings others", func(s *scene) {
			s.must(s.Home.Announce(s.ctx, h[2], h[0]))
			s.nmcli("connection", "up", "home")
			s.leads(h[2], h[0])
		})
		step("a VPN with a negative priority takes all DNS", func(s *scene) {
			s.nmcli("connection", "up", "vpn")
			s.leads(s.VPN.Resolvers[0], s.VPN.Resolvers[0]) // one resolver serves both addresses
		})
		step("device reapply takes effect", func(s *scene) {
			s.nmcli("connection", "modify", "vpn", "ipv4.dns", h[1].String())
			s.nmcli("device", "reapply", s.VPN.Device)
			s.leads(h[1], h[1])
		})
		step("the VPN goes and what was before is back", func(s *scene) {
			s.nmcli("connection", "down", "vpn")
			s.leads(h[2], h[0])
		})
		step("loopback, virtual and own addresses are never targets", func(s *scene) {
			s.nmcli("connection", "up", "vpn")
			s.must(s.NetVM.SetResolvers(s.ctx, s.VPN.Device, netip.MustParseAddr("127.0.0.53"),
				lab.Virtual4[1], s.Home.NetVM, h[1]))
			if r := s.leads(h[1], h[1]); len(r.DNSServers) != 1 {
				s.t.Errorf("usable are %q", r.DNSServers)
			}
			s.nmcli("connection", "down", "vpn")
		})
		step("without a resolver queries are refused and that is a problem", func(s *scene) {
			s.must(s.Home.Announce(s.ctx))
			s.nmcli("connection", "up", "home")
			s.leads(none, none)
			_, err := s.NetVM.Await(s.ctx, func(r netvm.Status) bool { return len(r.Problems) == 1 })
			s.must(err)
			s.must(s.Home.Announce(s.ctx, h[2], h[0]))
		})
		step("the user switches to another network", func(s *scene) {
			s.nmcli("connection", "down", "home")
			s.nmcli("connection", "up", "office")
			s.leads(o[0], o[1])
		})
		step("what others change in the kernel is restored", drift)
		step("netvmd is killed while the network changes", func(s *scene) {
			s.must(s.NetVM.KillNetvmd(s.ctx))
			s.reaches(o[0], o[1]) // on the last good rules
			s.must(s.Office.Announce(s.ctx, o[2]))
			s.nmcli("connection", "up", "office")
			s.start()
			s.leads(o[2], o[2])
			s.must(s.NetVM.TermNetvmd(s.ctx))
			s.reaches(o[2], o[2]) // SIGTERM leaves them too
			s.start()
			s.leads(o[2], o[2])
		})
		step("NetworkManager is killed and comes back", func(s *scene) {
			s.must(s.NetVM.KillNetworkManager(s.ctx))
			s.reaches(o[2], o[2])
			loop := s.Work.AskLoop(s.ctx, lab.Virtual4[0], lab.Question{}, 0)
			s.must(s.NetVM.StartNetworkManager(s.ctx))
			// It takes the link over as it is and asks DHCP anew.
			s.state("online")
			s.leads(o[2], o[2])
			if tally := lab.Count(loop.Stop()); tally.Lost+tally.Refused+tally.Failed > 0 {
				s.t.Errorf("meanwhile: %+v", tally)
			}
		})
		step("the bus is killed and comes back", func(s *scene) {
			s.must(s.NetVM.KillBus(s.ctx))
			s.reaches(o[2], o[2])
			s.must(s.NetVM.KillNetworkManager(s.ctx)) // which does not live through the loss of its bus
			s.must(s.NetVM.StartBus(s.ctx))
			s.must(s.NetVM.StartNetworkManager(s.ctx))
			s.nmcli("connection", "up", "office")
			s.nmcli("connection", "down", "office")
			s.nmcli("connection", "up", "home")
			s.leads(h[2], h[0])
		})
		step("the uplink disappears and returns", func(s *scene) {
			s.must(s.Home.Unplug())
			s.leads(none, none)
			s.state("offline")
			for range 20 { // the kernel's limit on ICMP errors swallows none
				if a, err := s.Personal.Ask(s.ctx, lab.Virtual4[0], lab.Question{}); !errors.Is(err, lab.ErrRefused) {
					s.t.Fatalf("after %s: %v", a.Took, err)
				}
			}
			s.must(s.Home.Plug())
			s.nmcli("connection", "up", "home")
			s.leads(h[2], h[0])
		})
		step("200 flaps end in the right state", func(s *scene) {
			s.nmcli("connection", "up", "vpn")
			for i := range 200 {
				s.must(s.NetVM.SetResolvers(s.ctx, s.VPN.Device, h[i%3]))
			}
			last := s.VPN.Resolvers[0]
			s.must(s.NetVM.SetResolvers(s.ctx, s.VPN.Device, last))
			s.leads(last, last)
		})
	})
}

// restoredWithin is how soon after the damage the rules must be as before; it takes some 20 ms.
const restoredWithin = time.Second

// drift flushes and deletes what is netvmd's behind its back.
func drift(s *scene) {
	o := s.Office.Resolvers
	attacks := map[lab.Backend][]string{
		lab.NFTables: {
			"nft delete element ip netvmd dns-targets { 10.139.1.1 }",
			"nft flush chain ip netvmd dnat-dns",
			"nft delete table ip netvmd",
			"nft flush ruleset",
		},
		lab.IPTablesNFT:    {"iptables-nft -t nat -F PR-QBS", "iptables-nft -t raw -F PREROUTING", "nft flush ruleset"},
		lab.IPTablesLegacy: {"iptables-legacy -t nat -F PR-QBS", "iptables-legacy -t nat -F", "iptables-legacy -t raw -F PREROUTING"},
	}[s.NetVM.Backend()]
	for _, attack := range attacks {
		s.t.Run(attack, func(t *testing.T) {
			s := s.with(t)
			before, err := s.NetVM.Status(s.ctx)
			s.must(err)
			mark := s.NetVM.Netvmd().LogLength()
			_, err = s.NetVM.Run(s.ctx, "sh", "-c", attack)
			s.must(err)
			soon, cancel := context.WithTimeout(s.ctx, restoredWithin)
			defer cancel()
			_, err = s.NetVM.Netvmd().AwaitLog(soon, mark, "restored our rules")
			s.must(err)
			s.reaches(o[0], o[1])
			after, err := s.NetVM.Status(s.ctx)
			s.must(err)
			if after.Statistics.Applies != before.Statistics.Applies {
				t.Errorf("a restoration counts as a change of targets")
			}
		})
	}
}

func TestResolversOfIPv6Only(t *testing.T) {
	for _, b := range backends {
		t.Run(string(b), func(t *testing.T) {
			s := open(t, lab.Options{Backend: b, Virtual: append(lab.Virtual4[:1:1], lab.Virtual6...)})
			six := s.Home.Resolvers[3:5]
			s.start()
			s.nmcli("connection", "modify", "home", "ipv6.method", "manual",
				"ipv6.addresses", s.Home.NetVM6.String()+"/64", "ipv6.dns", fmt.Sprintf("%s,%s", six[0], six[1]),
				"ipv4.method", "disabled")
			s.nmcli("connection", "up", "home")
			s.await(none, six[0], six[1])
			s.reaches(none)
			for i, v := range lab.Virtual6 {
				for _, q := range []lab.Question{{}, {TCP: true}} {
					if a, err := s.Work.Ask(s.ctx, v, q); err != nil || a.Who != six[i] {
						t.Errorf("%+v to %s: answered by %s, %v; want %s", q, v, a.Who, err, six[i])
					}
				}
			}
		})
	}
}

func TestResolvConfOfAnotherProgram(t *testing.T) {
	s := open(t, lab.Options{})
	h := s.Home.Resolvers
	s.start()
	s.nmcli("connection", "up", "home")
	s.leads(h[0], h[1])
	ours, err := s.NetVM.ReadFile("/etc/resolv.conf")
	s.must(err)
	if !strings.HasPrefix(string(ours), "# Generated by NetworkManager") {
		t.Fatalf("NetworkManager did not write resolv.conf: %q", ours)
	}
	s.must(s.NetVM.ReplaceFile("/etc/resolv.conf", []byte("# a VPN's script\nnameserver "+h[2].String()+"\n")))
	if r := s.leads(h[2], h[2]); r.DNSSource != "resolv.conf" {
		t.Errorf("source %s: %s", r.DNSSource, r.DNSReason)
	}
	// A malformed line is one problem that names it, and what was good before stays in force.
	s.must(s.NetVM.ReplaceFile("/etc/resolv.conf", []byte("nameserver 192.0.2.300\nnameserver "+h[1].String()+"\n")))
	_, err = s.NetVM.Await(s.ctx, func(r netvm.Status) bool {
		return len(r.Problems) == 1 && strings.Contains(r.Problems[0], "/etc/resolv.conf") && strings.Contains(r.Problems[0], "192.0.2.300")
	})
	s.must(err)
	s.leads(h[2], h[2])
	s.must(s.NetVM.ReplaceFile("/etc/resolv.conf", ours))
	if r := s.leads(h[0], h[1]); r.DNSSource != "networkmanager" || len(r.Problems) != 0 {
		t.Errorf("source %s: %s; problems %q", r.DNSSource, r.DNSReason, r.Problems)
	}
}

func TestSystemdResolved(t *testing.T) {
	s := open(t, lab.Options{})
	h := s.Home.Resolvers
	resolved, err := lab.FindResolved("../..")
	s.must(err)
	s.start()
	s.nmcli("connection", "up", "home")
	s.leads(h[0], h[1])
	// As a distribution sets it up: otherwise resolved takes what resolv.conf says for its global servers.
	_, err = s.NetVM.Run(s.ctx, "ln", "-sf", "/run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf")
	s.must(err)
	s.must(s.NetVM.StartResolved(s.ctx, resolved))
	// NetworkManager tells resolved what it knows, once that is on the bus (NetworkManager.conf(5), systemd-resolved).
	_, err = s.NetVM.Await(s.ctx, func(r netvm.Status) bool { return r.DNSSource == "resolved" && lab.LeadsTo(h[0], h[1])(r) })
	s.must(err)
	s.must(s.NetVM.SetLinkDNS(s.ctx, s.Home.Device, h[2]))
	if r := s.leads(h[2], h[2]); r.DNSSource != "resolved" {
		t.Errorf("source %s: %s", r.DNSSource, r.DNSReason)
	}
	s.must(s.NetVM.SetLinkDNS(s.ctx, s.Home.Device, h[1], h[2]))
	s.leads(h[1], h[2])
	s.must(s.NetVM.StopResolved(s.ctx))
	if r := s.leads(h[0], h[1]); r.DNSSource != "networkmanager" {
		t.Errorf("source %s: %s", r.DNSSource, r.DNSReason)
	}
}

func TestConfigurationIsReadAgainAndABadOneChangesNothing(t *testing.T) {
	s := open(t, lab.Options{})
	h := s.Home.Resolvers
	s.start()
	s.nmcli("connection", "up", "home")
	s.leads(h[0], h[1])
	reload := func(change func(string) string) int {
		s.t.Helper()
		s.configure(change)
		mark := s.NetVM.Netvmd().LogLength()
		s.must(s.NetVM.Netvmd().Signal(syscall.SIGHUP))
		return mark
	}
	bad := "serverz = []"
	mark := reload(setDNS(bad))
	line := s.awaitLog(mark, "the configuration is not used")
	if !strings.Contains(line, "netvmd.toml:") || !strings.Contains(line, "dns.serverz") {
		t.Errorf("the line does not name file, line and key: %s", line)
	}
	s.reaches(h[0], h[1])
	reload(func(text string) string {
		return setDNS(`servers = ["` + h[2].String() + `"]`)(strings.Replace(text, bad+"\n", "", 1))
	})
	if r := s.leads(h[2], h[2]); r.DNSSource != "config" {
		t.Errorf("source %s: %s", r.DNSSource, r.DNSReason)
	}

	// At the start a bad configuration is one line and exit code 1, and the kernel stays as it is.
	s.must(s.NetVM.TermNetvmd(s.ctx))
	s.configure(setDNS(bad))
	if _, err := s.NetVM.Run(s.ctx, program, "--config", s.NetVM.NetvmdConfig()); err == nil || !strings.HasSuffix(err.Error(), "netvmd.toml:5: unknown key dns.serverz: remove it or mend its spelling") {
		t.Errorf("start with a bad configuration: %v", err)
	}
	s.reaches(h[2], h[2])
}

func TestOnDriftWarnLeavesWhatOthersChangedAndSaysIt(t *testing.T) {
	s := open(t, lab.Options{})
	s.configure(onDriftWarn)
	h := s.Home.Resolvers
	s.start()
	s.nmcli("connection", "up", "home")
	s.leads(h[0], h[1])
	_, err := s.NetVM.Run(s.ctx, "nft", "delete element ip netvmd dns-targets { 10.139.1.1 }")
	s.must(err)
	_, err = s.NetVM.Await(s.ctx, func(r netvm.Status) bool {
		return len(r.Problems) == 1 && strings.Contains(r.Problems[0], "10.139.1.1")
	})
	s.must(err)
	s.nmcli("connection", "up", "vpn") // the next change mends it
	s.leads(s.VPN.Resolvers[0], s.VPN.Resolvers[0])
}

func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--help"}, 0, "SIGHUP reads the configuration again"},
		{[]string{"--version"}, 0, "netvmd devel"},
		{[]string{"--nonsense"}, 2, "nonsense"},
		{[]string{"--log-level", "loud"}, 2, "loud"},
		{[]string{"word"}, 2, `unexpected argument "word"`},
		{[]string{"--config", "/does/not/exist"}, 1, "/does/not/exist"},
	} {
		out, code, err := runProgram(program, tc.args...)
		if err != nil || code != tc.code || !strings.Contains(out, tc.says) {
			t.Errorf("netvmd %q: exit %d, %v, want %d and %q:\n%s", tc.args, code, err, tc.code, tc.says, out)
		}
	}
	if _, err := os.Stat("/run/netvmd"); err == nil {
		t.Error("a run that failed left /run/netvmd behind")
	}
}
