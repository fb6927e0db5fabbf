package firewall

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"netvmd/internal/netvm"
)

func TestNoPortOfTheNetvmAnswersAnAppVM(t *testing.T) {
	overBackends(t, func(t *testing.T, _ context.Context, n *topology, b Backend) {
		listener, err := net.Listen("tcp", ":4444")
		must(t, err)
		defer listener.Close()
		socket := n.listen("a socket of the netvm", n.router)
		doors := []netip.Addr{gateway4, uplink4, gateway6, uplink6}
		for _, to := range doors {
			for _, network := range []string{"tcp", "udp"} {
				if who, err := n.knock(network, netip.AddrPortFrom(to, testPort)); err == nil || isTimeout(err) {
					t.Errorf("%s to %s: answer of %q, %v; want it refused at once", network, to, who, err)
				}
			}
		}
		echo := n.tap("the AppVM", n.client)
		for _, to := range doors {
			from := client4
			if to.Is6() {
				from = client6
			}
			n.send(n.client, ping(from, to, "ping of "+to.String()))
			if from := echo.until("ping of " + to.String()); from != to {
				t.Errorf("ping of %s was answered by %s", to, from)
			}
		}
		n.allow(b, customInput)
		n.mustPass(n.client, client4, client6, at{socket, gateway4, gateway6}, at{socket, uplink4, uplink6})
	})
}

// knock says something to a port from the AppVM, and waits for an answer.
func (n *topology) knock(network string, to netip.AddrPort) (string, error) {
	conn, err := n.dial(network, to, 0)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return query(conn, token("knock"))
}

func TestNoPortOfTheNetvmAnswersTheUplink(t *testing.T) {
	overBackends(t, func(_ *testing.T, _ context.Context, n *topology, b Backend) {
		socket := at{n.listen("a socket of the netvm", n.router), uplink4, uplink6}
		for _, from := range []netip.Addr{resolverA, resolverA6} {
			n.send(n.server, n.toAll(from, "the uplink", []at{socket})...)
		}
		n.allow(b, customInput)
		n.mustPass(n.server, resolverA, resolverA6, socket)
	})
}

func TestAppVMsDoNotReachEachOtherUntilTheAdminOpensIt(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		other := at{n.tap("the other AppVM", n.other), other4, other6}
		uplink := at{n.tap("a host on the uplink", n.server), resolverA, resolverA6}
		for _, from := range []netip.Addr{client4, client6} {
			n.send(n.client, n.toAll(from, "another AppVM", []at{other})...)
		}
		n.mustPass(n.client, client4, client6, uplink)
		n.allow(b, customForward)
		n.mustPass(n.client, client4, client6, other)

		targets := []netvm.Target{to(virtual1, resolverA), to(virtual6, resolverA6)}
		apply(t, ctx, b, targets...)
		n.mustPass(n.client, client4, client6, other)
		for _, chain := range []string{"forward", "input"} {
			n.damageBase(b, chain)
			if changes, err := b.Ensure(ctx, nil); err != nil || len(changes) == 0 {
				t.Errorf("Ensure after damage: %q, %v", changes, err)
			}
			settled(t, ctx, b, targets...)
			n.mustPass(n.client, client4, client6, other)
		}
	})
}

// damageBase empties a chain of the base firewall.
func (n *topology) damageBase(b Backend, chain string) {
	n.t.Helper()
	switch b := b.(type) {
	case *nftBackend:
		n.run("nft", "flush", "chain", "ip", ownTable, chain)
		n.run("nft", "flush", "chain", "ip6", ownTable, chain)
	case *iptBackend:
		for _, f := range b.families {
			n.run(f.program, "-w", "-F", "QBS-BASE-"+strings.ToUpper(chain))
		}
	}
}

func TestAStrangerDoesNotReachAnAppVMThroughTheNetvm(t *testing.T) {
	overBackends(t, func(_ *testing.T, _ context.Context, n *topology, b Backend) {
		appVM := at{n.tap("the AppVM", n.client), client4, client6}
		uplink := at{n.tap("a host on the uplink", n.server), resolverA, resolverA6}
		elsewhere := at{uplink.observer, netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8:9::9")}
		for _, from := range []netip.Addr{resolverA, resolverA6, netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8:9::7")} {
			n.send(n.server, n.toAll(from, "a stranger", []at{appVM, elsewhere})...)
		}
		n.mustPass(n.client, client4, client6, uplink)
		n.allow(b, customForward)
		n.mustPass(n.server, resolverA, resolverA6, appVM)
	})
}

func TestWhatGoesOutHasTheAddressOfTheUplink(t *testing.T) {
	overBackends(t, func(t *testing.T, _ context.Context, n *topology, b Backend) {
		outside := n.tap("a host on the uplink", n.server)
		other := n.tap("the other AppVM", n.other)
		n.allow(b, customForward)
		for _, step := range []struct {
			at         *observer
			from, to   netip.Addr
			word, want string
		}{
			{outside, client4, resolverA, "out", uplink4.String()},
			{outside, client6, resolverA6, "out over IPv6", uplink6.String()},
			{other, client4, other4, "to another AppVM", client4.String()},
			{other, client6, other6, "to another AppVM over IPv6", client6.String()},
		} {
			n.send(n.client, n.datagram(step.from, step.to, step.word))
			if from := step.at.until(step.word); from.String() != step.want {
				t.Errorf("%s came from %s, want %s", step.word, from, step.want)
			}
		}
		// The answer finds the way back.
		back := n.tap("the AppVM", n.client)
		n.send(n.client, ping(client4, resolverA, "ping"), ping(client6, resolverA6, "ping over IPv6"))
		back.until("ping")
		back.until("ping over IPv6")
	})
}

func TestTheAdminTranslatesAfterDNS(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		outside := n.tap("a host on the uplink", n.server)
		n.inCustomDNAT(b)
		n.send(n.client, n.datagram(client4, netip.MustParseAddr("203.0.113.80"), "to the admin's port"))
		outside.until("to the admin's port")
		apply(t, ctx, b, to(virtual1, resolverB))
		n.mustReach(virtual1, resolverB)
		n.send(n.client, n.datagram(client4, netip.MustParseAddr("203.0.113.81"), "again"))
		outside.until("again")
	})
}

// inCustomDNAT lets the admin translate a network, and queries for a virtual address too.
func (n *topology) inCustomDNAT(b Backend) {
	n.t.Helper()
	switch b := b.(type) {
	case *nftBackend:
		n.run("nft", "add", "rule", "ip", ownTable, customDNAT, "ip", "daddr", "{ 203.0.113.0/24, 10.139.1.1 }", "dnat", "to", resolverA.String())
	case *iptBackend:
		for _, daddr := range []string{"203.0.113.0/24", "10.139.1.1"} {
			n.run(b.families[0].program, "-w", "-t", "nat", "-A", customDNAT, "-d", daddr, "-j", "DNAT", "--to-destination", resolverA.String())
		}
	}
}

func TestEnsureClosesAnEmptyKernel(t *testing.T) {
	overEmptyKernels(t, Options{}, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		if loaded, err := b.Loaded(ctx); loaded || err != nil {
			t.Errorf("an empty kernel is loaded: %v, %v", loaded, err)
		}
		changes, err := b.Ensure(ctx, []netip.Addr{virtual1, virtual6})
		must(t, err)
		if len(changes) == 0 {
			t.Error("Ensure changed nothing")
		}
		admitted(t, ctx, b)
		n.admit(ctx, b)
		n.mustRefuse(virtual1)
		n.mustRefuse(virtual6)
		settled(t, ctx, b, unserved(virtual1), unserved(virtual6))
		again, err := b.Ensure(ctx, []netip.Addr{virtual1, virtual6})
		must(t, err)
		if len(again) != 0 {
			t.Errorf("a second Ensure changes %q", again)
		}
	})
}

func TestEnsureKeepsTheTargets(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		targets := []netvm.Target{to(virtual1, resolverA), unserved(virtual2), to(virtual6, resolverA6)}
		apply(t, ctx, b, targets...)
		changes, err := b.Ensure(ctx, []netip.Addr{virtual1, virtual2, virtual6})
		must(t, err)
		if len(changes) != 0 {
			t.Errorf("Ensure of what is there changes %q", changes)
		}
		n.damageBase(b, "forward")
		_, err = b.Ensure(ctx, []netip.Addr{virtual1, virtual2, virtual6})
		must(t, err)
		settled(t, ctx, b, targets...)
		n.mustReach(virtual1, resolverA)
		admitted(t, ctx, b, netvm.Admission{Vif: "vif1.0", Addr: client4}, netvm.Admission{Vif: "vif1.0", Addr: client6},
			netvm.Admission{Vif: "vif2.0", Addr: other4}, netvm.Admission{Vif: "vif2.0", Addr: other6})
	})
}

func TestEnsureOfWhatIsNoVirtualAddressChangesNothing(t *testing.T) {
	overEmptyKernels(t, Options{}, func(t *testing.T, ctx context.Context, _ *topology, b Backend) {
		for name, virtual := range map[string][]netip.Addr{
			"an address twice": {virtual1, virtual1}, "no address": {{}}, "an address of one link": {netip.MustParseAddr("fe80::1%up0")},
		} {
			if changes, err := b.Ensure(ctx, virtual); err == nil || len(changes) != 0 {
				t.Errorf("%s: Ensure gave %q and no error", name, changes)
			}
		}
		if loaded, err := b.Loaded(ctx); loaded || err != nil {
			t.Errorf("something is loaded: %v, %v", loaded, err)
		}
	})
}

func TestWithoutABaseTheNetvmIsOpenAndVifsAreCheckedAllTheSame(t *testing.T) {
	overEmptyKernels(t, Options{Base: never}, func(_ *testing.T, ctx context.Context, n *topology, b Backend) {
		n.admit(ctx, b)
		n.mustBeOpen()
	})
}

// mustBeOpen wants that no base firewall stands, and that vifs are checked.
func (n *topology) mustBeOpen() {
	n.t.Helper()
	places := []at{
		{n.listen("a socket of the netvm", n.router), gateway4, gateway6},
		{n.tap("the other AppVM", n.other), other4, other6},
	}
	n.send(n.client, n.toAll(other4, "another AppVM", places)...)
	n.send(n.client, n.toAll(other6, "another AppVM", places)...)
	n.mustPass(n.client, client4, client6, places...)
}

// qubesOwn is what this test needs of the tables that Qubes' own scripts load; they let everything pass here.
const qubesOwn = `
table ip qubes { chain input { type filter hook input priority filter; }; chain forward { type filter hook forward priority filter; }
	chain postrouting { type nat hook postrouting priority srcnat; }; }
table ip6 qubes { chain input { type filter hook input priority filter; }; chain forward { type filter hook forward priority filter; }
	chain postrouting { type nat hook postrouting priority srcnat; }; }
`

func TestTheBaseStandsAsideForThatOfQubes(t *testing.T) {
	overEmptyKernels(t, Options{}, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		n.nft(qubesOwn)
		n.admit(ctx, b)
		n.mustBeOpen()
		settled(t, ctx, b)
	})
}

func TestTheBaseComesAndGoesWithThatOfQubes(t *testing.T) {
	overEmptyKernels(t, Options{}, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		n.admit(ctx, b)
		n.nft(qubesOwn)
		apply(t, ctx, b)
		n.mustBeOpen()
		settled(t, ctx, b)
		n.nft("delete table ip qubes\ndelete table ip6 qubes\n")
		apply(t, ctx, b)
		if _, err := n.knock("udp", netip.AddrPortFrom(gateway4, testPort)); err == nil || isTimeout(err) {
			t.Errorf("a knock at the netvm ended with %v, want it refused", err)
		}
		settled(t, ctx, b)
	})
}

func TestQubesScriptsOfTheIptablesTimesKeepTheirChain(t *testing.T) {
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			ctx := testContext(t)
			n := newTopology(t)
			for _, family := range []string{program, strings.Replace(program, "ip", "ip6", 1)} {
				n.run(family, "-N", "QBS-FORWARD")
				n.run(family, "-A", "FORWARD", "-j", "QBS-FORWARD")
				n.run(family, "-A", "QBS-FORWARD", "-m", "comment", "--comment", "theirs")
			}
			b, err := newIPTables(ctx, program, Options{Log: testLog(t)})
			must(t, err)
			n.admit(ctx, b)
			n.mustBeOpen()
			settled(t, ctx, b)
			if rules := n.run(program, "-S", "QBS-FORWARD"); !strings.Contains(rules, "theirs") {
				t.Errorf("their chain is now\n%s", rules)
			}

			always, err := newIPTables(ctx, program, Options{Base: always, Log: testLog(t)})
			must(t, err)
			apply(t, ctx, always)
			if rules := n.run(program, "-S", "FORWARD"); !strings.Contains(rules, "-j QBS-BASE-FORWARD") || !strings.Contains(rules, "-j QBS-FORWARD") {
				t.Errorf("FORWARD is now\n%s", rules)
			}
		})
	}
}

func TestWhatIsLeftOfABaseIsSweptAway(t *testing.T) {
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			ctx := testContext(t)
			n := newTopology(t)
			b, err := newIPTables(ctx, program, Options{Base: never, Log: testLog(t)})
			must(t, err)
			n.admit(ctx, b)
			n.run(program, "-N", chainBaseInput)
			t.Log(apply(t, ctx, b))
			settled(t, ctx, b)
		})
	}
}

func TestTheAdminsChainsOutliveTheBase(t *testing.T) {
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			ctx := testContext(t)
			n := newTopology(t)
			with, err := newIPTables(ctx, program, Options{Log: testLog(t)})
			must(t, err)
			n.admit(ctx, with)
			n.openEverything(with)
			without, err := newIPTables(ctx, program, Options{Base: never, Log: testLog(t)})
			must(t, err)
			apply(t, ctx, without)
			apply(t, ctx, with)
			n.mustPass(n.client, client4, client6, n.places()...)
			settled(t, ctx, with)

			rules, err := with.families[0].save(ctx)
			must(t, err)
			if chain := rules["filter"][customForward]; !slices.Equal(chain, []string{"-j ACCEPT"}) {
				t.Errorf("%s is %q", customForward, chain)
			}
		})
	}
}
