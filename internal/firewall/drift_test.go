package firewall

import (
	"context"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"netvmd/internal/netvm"
)

// watch runs Watch in the router's namespace until the test ends.
func (n *topology) watch(ctx context.Context, b Backend) <-chan string {
	n.t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	hints, ended := make(chan string, 1024), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with its namespace
		err := netns.Set(n.router)
		if err == nil {
			err = b.Watch(ctx, func(who string) { hints <- who })
		}
		ended <- err
	}()
	n.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			n.t.Errorf("Watch ended with %v, want nil when its context ends", err)
		}
	})
	n.hint(hints) // the first says that the watch stands
	return hints
}

// hint waits for a hint.
func (n *topology) hint(hints <-chan string) string {
	n.t.Helper()
	select {
	case who := <-hints:
		return who
	case <-time.After(patience):
		n.t.Fatal("Watch gave no hint")
		return ""
	}
}

// damage is what somebody may do to our rules while netvmd runs.
var damage = map[string][]struct{ name, command string }{
	"nftables": {
		{"an element is deleted", "nft delete element ip netvmd dns-targets { 10.139.1.1 }"},
		{"an element leads elsewhere", "nft delete element ip netvmd dns-targets { 10.139.1.1 }; nft add element ip netvmd dns-targets { 10.139.1.1 : 192.0.2.3 }"},
		{"an address is added", "nft add element ip netvmd dns-unserved { 10.139.1.7 }"},
		{"a rule is added in front", "nft insert rule ip netvmd dnat-dns udp dport 53 accept"},
		{"a chain is emptied", "nft flush chain ip6 netvmd dnat-dns"},
		{"who may send is forgotten", "nft flush chain ip netvmd antispoof"},
		{"nothing closes AppVMs to each other", "nft flush chain ip netvmd forward"},
		{"the table sleeps", "nft add table ip netvmd '{ flags dormant; }'"},
		{"a table is deleted", "nft delete table ip6 netvmd"},
		{"the table was made anew with other types", "nft delete table ip netvmd; nft add table ip netvmd; nft add map ip netvmd dns-targets '{ type ipv4_addr : mark; }'"},
		{"the whole ruleset is flushed", "nft flush ruleset"},
	},
	"iptables": {
		{"a rule is deleted", "IPT -t nat -D PR-QBS 1"},
		{"a rule is added in front", "IPT -t nat -I PREROUTING -p udp -j ACCEPT"},
		{"a rule is added to our chain", "IPT -t nat -A PR-QBS -p udp -j ACCEPT"},
		{"who may send is forgotten", "IPT -t raw -F QBS-ALLOWED"},
		{"everybody may send", "IPT -t raw -I QBS-ALLOWED -j ACCEPT"},
		{"one may send from all addresses", "IPT -t raw -I QBS-ALLOWED 2 -i vif1.0 -j RETURN"},
		{"nobody looks who sends", "IPT -t raw -F QBS-SPOOF"},
		{"the way to the antispoofing is closed", "IPT -t raw -D PREROUTING 1"},
		{"nothing closes AppVMs to each other", "IPT -F QBS-BASE-FORWARD"},
		{"a port is opened by a rule in our chain", "IPT -I QBS-BASE-INPUT 3 -p tcp -j ACCEPT"},
		{"nothing is masqueraded", "IPT -t nat -F POSTROUTING"},
		{"a jump is there twice", "IPT -A INPUT -j QBS-BASE-INPUT"},
		{"the tables are flushed", "IPT -F; IPT -t nat -F; IPT -t raw -F"},
		{"the tables are flushed and their chains deleted", "IPT -F; IPT -X; IPT -t nat -F; IPT -t nat -X; IPT -t raw -F; IPT -t raw -X"},
	},
}

func TestDamageIsNoticedAndMended(t *testing.T) {
	for name, open := range backends {
		kind, _, _ := strings.Cut(name, "-")
		for _, d := range damage[kind] {
			t.Run(name+"/"+d.name, func(t *testing.T) {
				ctx := testContext(t)
				n := newTopology(t)
				b, err := open(ctx, Options{Log: testLog(t)})
				must(t, err)
				n.admit(ctx, b)
				targets := []netvm.Target{to(virtual1, resolverA), unserved(virtual2), to(virtual6, resolverA6)}
				apply(t, ctx, b, targets...)
				hints := n.watch(ctx, b)

				n.run("sh", "-c", strings.ReplaceAll(d.command, "IPT", name))
				who := n.hint(hints)
				if kind == "nftables" && !strings.Contains(who, "nft") {
					t.Errorf("the hint names %q, want nft", who)
				}
				differences, err := b.Check(ctx, targets)
				must(t, err)
				if len(differences) == 0 {
					t.Error("Check finds nothing")
				}
				t.Log(apply(t, ctx, b, targets...))
				n.admit(ctx, b)
				n.mustReach(virtual1, resolverA)
				n.mustRefuse(virtual2)
				n.mustReach(virtual6, resolverA6)
				settled(t, ctx, b, targets...)
			})
		}
	}
}

func TestWhatIsNotOursIsLeftAlone(t *testing.T) {
	ctx := testContext(t)
	n := newTopology(t)
	n.nft(somebody)
	b, err := newNFTables(ctx, Options{Log: testLog(t)})
	must(t, err)
	n.admit(ctx, b)
	targets := []netvm.Target{to(virtual1, resolverA)}
	apply(t, ctx, b, targets...)
	n.nft("add chain ip netvmd custom-input\nadd rule ip netvmd custom-input counter\n")
	settled(t, ctx, b, targets...)
	before := n.run("nft", "list", "table", "ip", "somebody")

	n.run("nft", "flush", "chain", "ip", "netvmd", "dnat-dns")
	apply(t, ctx, b, targets...)
	if after := n.run("nft", "list", "table", "ip", "somebody"); after != before {
		t.Errorf("somebody's table was\n%s and is\n%s", before, after)
	}
	if chain := n.run("nft", "list", "chain", "ip", "netvmd", "custom-input"); !strings.Contains(chain, "counter") {
		t.Errorf("the admin's chain is now\n%s", chain)
	}
}

func TestANewProcessFindsNothingToDo(t *testing.T) {
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			n := newTopology(t)
			targets := []netvm.Target{to(virtual1, resolverA), unserved(virtual2), to(virtual6, resolverA6)}
			first, err := open(ctx, Options{Log: testLog(t)})
			must(t, err)
			n.admit(ctx, first)
			apply(t, ctx, first, targets...)

			reader := &nftReader{}
			before, err := reader.generation(ctx)
			must(t, err)
			second, err := open(ctx, Options{Log: testLog(t)})
			must(t, err)
			settled(t, ctx, second, targets...)
			after, err := reader.generation(ctx)
			must(t, err)
			if before != after {
				t.Errorf("%d transactions where none was needed", after-before)
			}
			// And it takes over from there.
			apply(t, ctx, second, to(virtual1, resolverB), unserved(virtual2), to(virtual6, resolverB6))
			n.mustReach(virtual1, resolverB)
		})
	}
}

func TestAVirtualAddressThatIsNotListedIsForgotten(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		apply(t, ctx, b, to(virtual1, resolverA), unserved(virtual2), to(virtual6, resolverA6))
		changes := apply(t, ctx, b, to(virtual1, resolverA))
		if text := strings.Join(changes, "\n"); len(changes) != 2 || !strings.Contains(text, virtual2.String()) || !strings.Contains(text, virtual6.String()) {
			t.Errorf("changes are %q, want one for %s and one for %s", changes, virtual2, virtual6)
		}
		n.mustReach(virtual1, resolverA)
		settled(t, ctx, b, to(virtual1, resolverA))
		apply(t, ctx, b)
		settled(t, ctx, b)
	})
}

func TestTargetsThatMakeNoSenseChangeNothing(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, _ *topology, b Backend) {
		good := []netvm.Target{to(virtual1, resolverA)}
		apply(t, ctx, b, good...)
		for name, bad := range map[string][]netvm.Target{
			"a resolver of another family": {to(virtual1, resolverA6)},
			"a virtual address twice":      {to(virtual1, resolverA), to(virtual1, resolverB)},
			"no virtual address":           {to(netip.Addr{}, resolverA)},
			"a resolver of one link":       {to(virtual6, netip.MustParseAddr("fe80::1%up0"))},
			"a mapped IPv4 address":        {to(virtual6, netip.MustParseAddr("::ffff:192.0.2.1"))},
		} {
			if changes, err := b.Apply(ctx, bad); err == nil || len(changes) != 0 {
				t.Errorf("%s: Apply gave %q and no error", name, changes)
			}
			if _, err := b.Check(ctx, bad); err == nil {
				t.Errorf("%s: Check gave no error", name)
			}
		}
		settled(t, ctx, b, good...)
	})
}

func TestAResolverThatIsTheVirtualAddressPassesThrough(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		n.in(n.server, func() { addAddress(t, "eth0", virtual1.String()+"/32") })
		n.serve(virtual1)
		apply(t, ctx, b, to(virtual1, virtual1))
		n.mustReach(virtual1, virtual1)
	})
}
