package firewall

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"netvmd/internal/netvm"
)

func TestTheTallyKnowsWhatEveryCounterOfTheRulesIsFor(t *testing.T) {
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`counter (?:name )?"?([a-z-]+)"?`).FindAllStringSubmatch(ownText+baseText+flowtableText, -1) {
		names[m[1]] = true
	}
	for _, f := range []*iptFamily{{v4: true}, {}} {
		addr := client4
		if !f.v4 {
			addr = client6
		}
		for _, c := range append(f.spoofChains([]netvm.Admission{{Vif: "vif1.0", Addr: addr}}, nil), f.static(true)...) {
			for _, rule := range c.rules {
				line := "*" + c.table + "\n[1:2] -A " + c.name + " " + rule
				counted := parseCounters("ip", line)
				if stops := strings.Contains(rule, drop) || strings.Contains(rule, "REJECT"); stops != (len(counted) == 1) {
					t.Errorf("%q is counted as %+v", line, counted)
				}
				for _, counter := range counted {
					names[counter.Name] = true
				}
			}
		}
	}
	if len(names) < 30 {
		t.Errorf("only %d counters were found", len(names))
	}
	for name := range names {
		if reasonOf(name) == unknownReason {
			t.Errorf("no sum knows what the packets of %q are stopped for", name)
		}
	}
}

func TestTheTallySumsByWhatPacketsWereStoppedFor(t *testing.T) {
	n := func(name string, packets uint64) netvm.Counter { return netvm.Counter{Name: name, Packets: packets} }
	for _, tc := range []struct {
		name     string
		counters []netvm.Counter
		want     [4]uint64
	}{
		{"no rules are loaded", nil, [4]uint64{}},
		{"nftables, over its families", []netvm.Counter{
			n("spoofed", 1), n("spoofed", 2), n("spoofed-uplink", 4), n("spoofed-neighbour", 8), n("link-local", 1000),
			n("dns-refused-udp", 16), n("dns-refused-tcp", 32), n("input-rejected", 64), n("input-dropped", 128),
			n("input-invalid", 256), n("forward-closed", 512), n("forward-invalid", 1024), n("dns-untracked", 2048),
		}, [4]uint64{15, 48, 448, 3584}},
		{"iptables", []netvm.Counter{
			n("QBS-ALLOWED -j DROP", 1), n("QBS-SPOOF -s 10.137.0.5/32 -j DROP", 2), n("QBS-ALLOWED -s fe80::/10 -j DROP", 1000),
			n("QBS-ALLOWED -s ::/128 -j DROP", 1000), n("QBS-ALLOWED -p ipv6-icmp -m icmp6 --icmpv6-type 136 -j DROP", 4),
			n("QBS-DNS-INPUT -p tcp -m tcp --dport 53 -j REJECT --reject-with tcp-reset", 8),
			n("QBS-DNS-FORWARD -p udp -m udp --dport 53 -m conntrack --ctstate INVALID,UNTRACKED -j REJECT", 16),
			n("QBS-BASE-INPUT -j DROP", 32), n("QBS-BASE-FORWARD -m devgroup --dst-group 0x2 -j DROP", 64),
		}, [4]uint64{7, 8, 32, 80}},
		{"what another version left counts for nothing", []netvm.Counter{n("shaped", 7), n("QBS-SHAPE -j DROP", 7)}, [4]uint64{}},
	} {
		got := Tally(tc.counters)
		if sums := [4]uint64{got.Spoofed, got.Unserved, got.InputRejected, got.ForwardRejected}; sums != tc.want || len(got.Counters) != len(tc.counters) {
			t.Errorf("%s: %v, want %v", tc.name, sums, tc.want)
		}
	}
}

func TestTheTallyOfWhatAnAppVMIsRefusedRises(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		apply(t, ctx, b, to(virtual1, resolverA), unserved(virtual2), unserved(virtual6))
		before := tally(t, ctx, b)
		n.mustReach(virtual1, resolverA)
		if now := tally(t, ctx, b); now.Unserved != before.Unserved {
			t.Errorf("a query that was answered is counted: %+v", now)
		}
		n.mustRefuse(virtual2)
		n.mustRefuse(virtual6)
		if now := tally(t, ctx, b); now.Unserved < before.Unserved+80 || now.Spoofed != before.Spoofed {
			t.Errorf("unserved %d and spoofed %d after 80 refused queries, were %d and %d",
				now.Unserved, now.Spoofed, before.Unserved, before.Spoofed)
		}
	})
}

func tally(t *testing.T, ctx context.Context, b Backend) netvm.Tally {
	t.Helper()
	counters, err := b.Counters(ctx)
	must(t, err)
	return Tally(counters)
}
