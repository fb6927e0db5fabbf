package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/lab"
	"netvmd/internal/netvm"
)

// askAgain is how long an answer is waited for that may be lost while rules are written.
const askAgain = 50 * time.Millisecond

// mendedWithin is how soon a vif must be as before. It takes some 100 ms, and more with iptables on a busy machine.
const mendedWithin = 5 * time.Second

// vifsAre waits until netvmd says that these vifs are there, in order and up.
func (s *scene) vifsAre(names ...string) netvm.Status {
	s.t.Helper()
	status, err := s.NetVM.Await(s.ctx, func(st netvm.Status) bool {
		return slices.EqualFunc(st.Vifs, names, func(v netvm.Vif, name string) bool { return v.Name == name && v.State == netvm.VifUp })
	})
	if err != nil {
		s.t.Fatalf("want the vifs %q up: %v; they are %+v, the problems %q", names, err, status.Vifs, status.Problems)
	}
	return status
}

// run runs a command in the netvm.
func (s *scene) run(command string) string {
	s.t.Helper()
	out, err := s.NetVM.Run(s.ctx, "sh", "-c", command)
	s.must(err)
	return out
}

// vifSignals hears netvmd's signals about vifs from now on; what it returns waits for the next n of them, which may
// arrive after the status that they tell of was read over another connection.
func (s *scene) vifSignals() func(n int) []string {
	s.t.Helper()
	conn, err := s.NetVM.Bus()
	s.must(err)
	s.t.Cleanup(func() { _ = conn.Close() }) // nothing that was sent is awaited
	signals := make(chan *godbus.Signal, 100)
	conn.Signal(signals)
	s.must(conn.AddMatchSignalContext(s.ctx, godbus.WithMatchInterface("org.qubes_os.NetVM1")))
	return func(n int) (got []string) {
		s.t.Helper()
		for len(got) < n {
			select {
			case sig := <-signals:
				if name := sig.Name[strings.LastIndex(sig.Name, ".")+1:]; strings.HasPrefix(name, "Vif") {
					got = append(got, fmt.Sprintf("%s %v", name, sig.Body[0]))
				}
			case <-s.ctx.Done():
				s.t.Fatalf("signals %q, and no more of %d: %v", got, n, s.ctx.Err())
			}
		}
		return got
	}
}

func TestVifsAreFollowed(t *testing.T) {
	overBackends(t, func(s *scene) {
		h := s.Home.Resolvers
		work, personal := s.Work.Vif, s.Personal.Vif
		s.start()
		s.nmcli("connection", "up", "home")
		s.leads(h[0], h[1])
		status := s.vifsAre(work, personal)
		v := status.Vifs[0]
		if !slices.Contains(v.Addresses, s.Work.Address) || v.MAC != s.Work.Card.MAC || v.DomID != s.Work.Card.DomID ||
			v.Metric != 32752-v.DomID || time.Since(v.Since) > time.Hour || !v.Gateway.IsValid() {
			t.Errorf("%+v", v)
		}
		signals := s.vifSignals()
		s.must(s.Personal.Detach(s.ctx))
		s.vifsAre(work)
		s.must(s.Personal.Attach(s.ctx))
		s.vifsAre(work, personal)
		if got, want := signals(2), []string{"VifRemoved " + personal, "VifAdded " + personal}; !slices.Equal(got, want) {
			t.Errorf("signals %q, want %q", got, want)
		}
		s.must(s.NetVM.KillNetvmd(s.ctx))
		s.must(s.Work.Detach(s.ctx))
		s.must(s.Personal.Detach(s.ctx))
		s.must(s.Personal.Attach(s.ctx))
		s.start()
		s.vifsAre(personal)
		s.must(s.Work.Attach(s.ctx))
		s.vifsAre(work, personal)
		s.reaches(h[0], h[1])
		s.domainDies()
		driftOfVifs(s)
	})
}

// domainDies takes a device away without telling anybody, as when a domain is killed together with its toolstack.
func (s *scene) domainDies() {
	s.t.Helper()
	mark := s.NetVM.Netvmd().LogLength()
	s.must(s.NetVM.RemoveCard(s.Personal.Card))
	s.vifsAre(s.Work.Vif)
	s.awaitLog(mark, "cleaned up after a vif whose device is gone", s.Personal.Vif)
	record := filepath.Join(s.NetVM.RuntimeDir(), "vifs", s.Personal.Vif+".json")
	if _, err := os.Stat(record); err == nil {
		s.t.Errorf("%s is still there", record)
	}
	if rules := s.rules(); strings.Contains(rules, s.Personal.Vif) {
		s.t.Errorf("the firewall still knows %s:\n%s", s.Personal.Vif, rules)
	}
	s.NetVM.ForgetCard(s.Personal.Card)
	s.must(s.Personal.Attach(s.ctx))
	s.vifsAre(s.Work.Vif, s.Personal.Vif)
}

// rules are those that the backend has in the kernel.
func (s *scene) rules() string {
	s.t.Helper()
	return s.run(map[lab.Backend]string{
		lab.NFTables:       "nft list ruleset",
		lab.IPTablesNFT:    "iptables-nft-save; ip6tables-nft-save",
		lab.IPTablesLegacy: "iptables-legacy-save; ip6tables-legacy-save",
	}[s.NetVM.Backend()])
}

// driftOfVifs takes from a vif, behind netvmd's back, what it must have.
func driftOfVifs(s *scene) {
	h, vif, addr := s.Home.Resolvers, s.Work.Vif, s.Work.Address
	attacks := []string{
		fmt.Sprintf("ip route del %s dev %s", addr, vif),
		fmt.Sprintf("ip -6 route del %s dev %s", s.Work.Address6, vif),
		fmt.Sprintf("ip addr flush dev %s", vif),
		fmt.Sprintf("ip neigh del %s dev %s", addr, vif),
		fmt.Sprintf("ip neigh replace %s lladdr 00:16:3e:00:00:09 nud permanent dev %s", addr, vif),
		fmt.Sprintf("ip link set %s group 0", vif),
		fmt.Sprintf("ip link set %s down", vif),
		"ip route flush dev " + vif,
	}
	attacks = append(attacks, map[lab.Backend][]string{
		lab.NFTables: {
			"nft flush set ip netvmd allowed", "nft flush set ip netvmd downstream", "nft flush set arp netvmd allowed",
			"nft delete table ip netvmd", "nft flush ruleset",
			fmt.Sprintf("nft add element ip netvmd allowed { %s . 10.137.0.99 }", vif),
		},
		lab.IPTablesNFT: {
			fmt.Sprintf("iptables-nft -t raw -D QBS-ALLOWED -s %s -i %s -j RETURN", addr, vif), "iptables-nft -t raw -F", "nft flush ruleset",
		},
		lab.IPTablesLegacy: {
			fmt.Sprintf("iptables-legacy -t raw -D QBS-ALLOWED -s %s -i %s -j RETURN", addr, vif), "iptables-legacy -t raw -F",
		},
	}[s.NetVM.Backend()]...)
	before := s.vifState(vif)
	for _, attack := range attacks {
		s.t.Run(attack, func(t *testing.T) {
			s := s.with(t)
			began := time.Now()
			s.run(attack)
			for s.vifState(vif) != before {
				if time.Since(began) > mendedWithin {
					t.Fatalf("not mended:\n%s\nwas:\n%s", s.vifState(vif), before)
				}
			}
			t.Logf("as before after %s", time.Since(began).Round(time.Millisecond))
			for { // iptables has more than one step to go
				_, err := s.Work.Ask(s.ctx, lab.Virtual4[0], lab.Question{Timeout: askAgain})
				if err == nil || time.Since(began) > mendedWithin {
					break
				}
			}
			s.reaches(h[0], h[1])
		})
	}
	s.vifsAre(s.Work.Vif, s.Personal.Vif)
}

// vifState is all that the kernel and the firewall have of a vif, as text.
func (s *scene) vifState(vif string) string {
	s.t.Helper()
	return s.run(fmt.Sprintf("ip -o link show %[1]s | grep -o '<.*>\\|group [a-z0-9]*'; ip -o addr show dev %[1]s | grep -v 'inet6 fe80' | cut -c4-50; "+
		"ip route show dev %[1]s; ip -6 route show dev %[1]s | grep -v fe80; ip neigh show dev %[1]s nud permanent", vif)) +
		s.admissions(vif)
}

// admissions are the lines of the firewall that name the vif.
func (s *scene) admissions(vif string) string {
	s.t.Helper()
	if s.NetVM.Backend() != lab.NFTables {
		var out []string
		for _, line := range strings.Split(s.rules(), "\n") {
			if strings.Contains(line, vif) || strings.Contains(line, s.Work.Address.String()) {
				out = append(out, line)
			}
		}
		return strings.Join(out, "\n")
	}
	var out []string
	for _, set := range []string{"ip netvmd allowed", "ip netvmd downstream", "ip6 netvmd allowed", "ip6 netvmd downstream", "arp netvmd allowed"} {
		text, err := s.NetVM.Run(s.ctx, "sh", "-c", "nft list set "+set)
		if err != nil {
			text = "none"
		}
		out = append(out, set+": "+text)
	}
	return strings.Join(out, "\n")
}

func TestDriftOfVifsIsOnlySaidWhenTheAdminWantsThat(t *testing.T) {
	s := open(t, lab.Options{})
	s.configure(func(text string) string {
		return strings.Replace(text, "[firewall]\n", "[firewall]\non_drift = \"warn\"\n", 1)
	})
	s.start()
	s.vifsAre(s.Work.Vif, s.Personal.Vif)
	s.run(fmt.Sprintf("ip route del %s dev %s", s.Work.Address, s.Work.Vif))
	status, err := s.NetVM.Await(s.ctx, func(st netvm.Status) bool {
		return len(st.Vifs) == 2 && st.Vifs[0].State == netvm.VifDegraded && len(st.Problems) == 1
	})
	s.must(err)
	if p := status.Problems[0]; !strings.Contains(p, s.Work.Vif) || !strings.Contains(p, "the route to "+s.Work.Address.String()) {
		t.Errorf("the problem is %q", p)
	}
	if out := s.run("ip route show dev " + s.Work.Vif); strings.Contains(out, s.Work.Address.String()) {
		t.Errorf("it was mended all the same: %s", out)
	}
	s.configure(func(text string) string {
		return strings.Replace(text, "on_drift = \"warn\"", "on_drift = \"restore\"", 1)
	})
	s.run(fmt.Sprintf("kill -HUP %d", s.NetVM.Netvmd().PID()))
	if status := s.vifsAre(s.Work.Vif, s.Personal.Vif); len(status.Problems) > 0 {
		t.Errorf("problems %q", status.Problems)
	}
}
