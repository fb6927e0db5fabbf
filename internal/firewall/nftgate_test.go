package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"netvmd/internal/netvm"
)

// qubesTables are, in outline, those of Qubes' own scripts: without a word from us they drop all that a vif sends.
const qubesTables = `
table ip qubes {
	set allowed { type ifname . ipv4_addr; elements = { "vif9.0" . 10.137.0.99 }; }
	set downstream { type ipv4_addr; elements = { 10.137.0.99 }; }
	chain antispoof {
		type filter hook prerouting priority raw; policy accept;
		iifname . ip saddr @allowed accept
		iifgroup 2 counter drop
		ip saddr @downstream counter drop
	}
	chain forward { type filter hook forward priority filter; policy accept; }
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifgroup 2 accept
		masquerade
	}
}
table ip6 qubes {
	set allowed { type ifname . ipv6_addr; }
	set downstream { type ipv6_addr; }
	chain antispoof {
		type filter hook prerouting priority raw; policy accept;
		iifname . ip6 saddr @allowed accept
		iifgroup 2 counter drop
	}
	chain forward { type filter hook forward priority filter; policy accept; }
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifgroup 2 accept
		masquerade
	}
}
`

func TestQubesOwnTablesLearnOfOurVifs(t *testing.T) {
	ctx := testContext(t)
	n := newTopology(t)
	n.nft(qubesTables)
	before := n.run("nft", "-s", "list", "ruleset")
	b, err := newNFTables(ctx, Options{Log: testLog(t)})
	must(t, err)
	apply(t, ctx, b, to(virtual1, resolverA), to(virtual6, resolverA6))
	n.admit(ctx, b)
	n.mustReach(virtual1, resolverA)
	n.mustReach(virtual6, resolverA6)
	set := n.run("nft", "list", "set", "ip", "qubes", "allowed")
	for _, element := range []string{`"vif1.0" . 10.137.0.5`, `"vif9.0" . 10.137.0.99`} {
		if !strings.Contains(set, element) {
			t.Errorf("no %s in Qubes' own set:\n%s", element, set)
		}
	}
	hints := n.watch(ctx, b)
	n.run("nft", "flush set ip qubes allowed; flush set ip qubes downstream; add element ip qubes allowed { vif9.0 . 10.137.0.99 }; "+
		"add element ip qubes downstream { 10.137.0.99 }") // as when Qubes loads them anew
	n.hint(hints)
	if is, err := b.Admitted(ctx); err != nil || slices.Contains(is, netvm.Admission{Vif: "vif1.0", Addr: client4}) {
		t.Errorf("%v are admitted, %v, although Qubes' own table drops what vif1.0 sends", is, err)
	}
	n.admit(ctx, b)
	n.mustReach(virtual1, resolverA)
	must(t, b.Expel(ctx, "vif1.0", nil))
	must(t, b.Expel(ctx, "vif2.0", nil))
	n.run("nft", "delete table ip netvmd; delete table ip6 netvmd; delete table arp netvmd")
	if after := n.run("nft", "-s", "list", "ruleset"); after != before {
		t.Errorf("Qubes' own tables were\n%s\nand are\n%s", before, after)
	}
}

func TestWhatDoesNotFitIsMadeAnewAndTheAdminsRulesAndTheVifsStay(t *testing.T) {
	for name, leftover := range map[string]string{
		"a chain on another hook": "delete chain ip netvmd dns-guard; add chain ip netvmd dns-guard { type filter hook output priority 0; }",
		"a set of another type":   "flush chain ip netvmd dns-refuse; delete set ip netvmd dns-unserved; add set ip netvmd dns-unserved { type mark; }",
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			n := newTopology(t)
			b, err := newNFTables(ctx, Options{Log: testLog(t)})
			must(t, err)
			targets := []netvm.Target{to(virtual1, resolverA), unserved(virtual2)}
			apply(t, ctx, b, targets...)
			n.admit(ctx, b)
			n.run("nft", "add rule ip netvmd custom-forward counter comment mine")
			n.run("nft", leftover)

			apply(t, ctx, b, targets...)
			n.mustReach(virtual1, resolverA) // without being admitted again
			n.mustRefuse(virtual2)
			settled(t, ctx, b, targets...)
			if chain := n.run("nft", "list", "chain", "ip", "netvmd", "custom-forward"); !strings.Contains(chain, "mine") {
				t.Errorf("the admin's rule is gone:\n%s", chain)
			}
		})
	}
}

// BenchmarkAdmission shows what a vif costs beside few others and beside many. Its goroutine is bound to the thread that
// is in the namespace, which costs two switches of threads for each wait for netlink.
func BenchmarkAdmission(bench *testing.B) {
	ctx := context.Background()
	newTopology(bench)
	b, err := newNFTables(ctx, Options{Log: testLog(bench)})
	must(bench, err)
	_, err = b.Ensure(ctx, nil)
	must(bench, err)
	there := 0
	for _, others := range []int{1, 255} {
		for ; there < others; there++ {
			v6 := netip.MustParseAddr(fmt.Sprintf("fd09:24ef:4179::1:%x", there))
			must(bench, b.Admit(ctx, fmt.Sprintf("vif%d.0", 100+there), []netip.Addr{netip.AddrFrom4([4]byte{10, 137, 1, byte(there)}), v6}))
		}
		bench.Run(fmt.Sprintf("beside %d", others), func(bench *testing.B) {
			for range bench.N {
				must(bench, b.Admit(ctx, "vif7.0", []netip.Addr{client4, client6}))
				must(bench, b.Expel(ctx, "vif7.0", nil))
			}
		})
	}
}

func TestARulesetThatTookTooLongToLoadTakesNothingAway(t *testing.T) {
	ctx := testContext(t)
	n := newTopology(t)
	b, err := newNFTables(ctx, Options{Log: testLog(t)})
	must(t, err)
	apply(t, ctx, b, to(virtual1, resolverA))
	n.run("nft", "add rule ip netvmd custom-forward counter comment mine")
	before := n.run("nft", "-s", "list", "ruleset")

	runs := filepath.Join(t.TempDir(), "runs")
	b.program = filepath.Join(t.TempDir(), "nft")
	must(t, os.WriteFile(b.program, []byte("#!/bin/sh\necho run >>"+runs+"\nexec sleep 60\n"), 0o755))
	b.patience = 200 * time.Millisecond
	if err := b.loadText(ctx, ownText); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the deadline's error", err)
	}
	if text, err := os.ReadFile(runs); err != nil || string(text) != "run\n" {
		t.Errorf("nft ran %q, %v; want once", text, err)
	}
	if after := n.run("nft", "-s", "list", "ruleset"); after != before {
		t.Errorf("the ruleset was\n%s\nand is\n%s", before, after)
	}
}

// TestRulesThatWereVouchedForAreMendedAllTheSame: a voucher holds as long as nobody committed anything.
func TestRulesThatWereVouchedForAreMendedAllTheSame(t *testing.T) {
	ctx := testContext(t)
	n := newTopology(t)
	o := Options{Lock: filepath.Join(t.TempDir(), "firewall.lock"), Log: testLog(t)}
	ensure := func() []string {
		t.Helper()
		b := newVouched(ctx, t, o) // as another process
		changes, err := b.Ensure(ctx, nil)
		must(t, err)
		must(t, b.Admit(ctx, "vif1.0", []netip.Addr{client4, client6}))
		must(t, b.Admit(ctx, "vif2.0", []netip.Addr{other4, other6}))
		return changes
	}
	if len(ensure()) == 0 {
		t.Fatal("nothing was loaded")
	}
	ensure() // finds all whole
	must(t, newVouched(ctx, t, o).Expel(ctx, "vif2.0", nil))
	if b := newVouched(ctx, t, o); !b.vouched(mustGeneration(ctx, t, b)) {
		t.Error("nobody vouches for rules that were found whole, and only our own elements have changed since")
	}
	n.run("nft", "flush", "chain", "ip", "netvmd", "antispoof")
	if changes := ensure(); len(changes) != 1 || !strings.Contains(changes[0], "ruleset loaded") {
		t.Errorf("after damage: %q", changes)
	}
	if changes := ensure(); len(changes) != 0 {
		t.Errorf("after that was mended: %q", changes)
	}
	must(t, os.WriteFile(o.Lock, []byte("garbage"), 0o600))
	if changes := ensure(); len(changes) != 0 {
		t.Errorf("without a voucher, of whole rules: %q", changes)
	}
}

func newVouched(ctx context.Context, t *testing.T, o Options) *nftBackend {
	t.Helper()
	b, err := newNFTables(ctx, o)
	must(t, err)
	return b
}

func mustGeneration(ctx context.Context, t *testing.T, b *nftBackend) uint32 {
	t.Helper()
	generation, err := b.reader.generation(ctx)
	must(t, err)
	return generation
}
