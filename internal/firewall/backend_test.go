package firewall

import (
	"context"
	"net/netip"
	"testing"

	"netvmd/internal/netvm"
)

// backends are all that the behavioural tests run over.
var backends = map[string]func(context.Context, Options) (Backend, error){
	"nftables": func(ctx context.Context, o Options) (Backend, error) { return newNFTables(ctx, o) },
	"iptables-nft": func(ctx context.Context, o Options) (Backend, error) {
		return newIPTables(ctx, "iptables-nft", o)
	},
	"iptables-legacy": func(ctx context.Context, o Options) (Backend, error) {
		return newIPTables(ctx, "iptables-legacy", o)
	},
}

// overBackends runs a test over each backend, each time in a topology of its own, whose AppVMs are admitted.
func overBackends(t *testing.T, test func(*testing.T, context.Context, *topology, Backend)) {
	overEmptyKernels(t, Options{}, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		n.admit(ctx, b)
		test(t, ctx, n, b)
	})
}

// overEmptyKernels runs a test over each backend with these options, each time in a topology without any rules.
func overEmptyKernels(t *testing.T, o Options, test func(*testing.T, context.Context, *topology, Backend)) {
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			n := newTopology(t)
			o.Log = testLog(t)
			b, err := open(ctx, o)
			must(t, err)
			test(t, ctx, n, b)
		})
	}
}

// apply applies and wants a change.
func apply(t testing.TB, ctx context.Context, b Backend, targets ...netvm.Target) []string {
	t.Helper()
	changes, err := b.Apply(ctx, targets)
	must(t, err)
	if len(changes) == 0 {
		t.Errorf("Apply(%v) changed nothing", targets)
	}
	return changes
}

// settled wants the kernel to be as these targets want it.
func settled(t testing.TB, ctx context.Context, b Backend, targets ...netvm.Target) {
	t.Helper()
	differences, err := b.Check(ctx, targets)
	must(t, err)
	for _, d := range differences {
		t.Errorf("Check finds: %s", d)
	}
	changes, err := b.Apply(ctx, targets)
	must(t, err)
	for _, c := range changes {
		t.Errorf("Apply of what is there changes: %s", c)
	}
}

func TestAQueryReachesItsTarget(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		targets := []netvm.Target{to(virtual1, resolverA), to(virtual2, resolverB), to(virtual6, resolverB6)}
		apply(t, ctx, b, targets...)
		n.mustReach(virtual1, resolverA)
		n.mustReach(virtual2, resolverB)
		n.mustReach(virtual6, resolverB6)
		settled(t, ctx, b, targets...)

		apply(t, ctx, b, to(virtual1, resolverC), to(virtual2, resolverC), to(virtual6, resolverA6))
		n.mustReach(virtual1, resolverC)
		n.mustReach(virtual2, resolverC)
		n.mustReach(virtual6, resolverA6)
	})
}

func TestAClientThatKeepsItsPortMovesOnItsFirstQuery(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		for _, step := range []struct{ virtual, first, second netip.Addr }{
			{virtual1, resolverA, resolverB}, {virtual6, resolverA6, resolverB6},
		} {
			conn, err := n.dial("udp", netip.AddrPortFrom(step.virtual, dnsPort), 5353)
			must(t, err)
			for _, r := range []netip.Addr{step.first, step.second, step.first, step.second} {
				apply(t, ctx, b, to(step.virtual, r))
				who, err := query(conn, "who")
				must(t, err)
				if who != r.String() {
					t.Errorf("%s answered, want %s", who, r)
				}
			}
			must(t, conn.Close())
		}
	})
}

func TestAnUnservedAddressIsRefusedAtOnce(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		apply(t, ctx, b, to(virtual1, resolverA), unserved(virtual2), unserved(virtual6))
		n.mustRefuse(virtual2)
		n.mustRefuse(virtual6)
		n.mustReach(virtual1, resolverA)

		n.run("ip", "route", "del", "default")
		n.run("ip", "-6", "route", "del", "default")
		targets := []netvm.Target{unserved(virtual1), unserved(virtual2), unserved(virtual6)}
		apply(t, ctx, b, targets...)
		for _, v := range []netip.Addr{virtual1, virtual2, virtual6} {
			n.mustRefuse(v)
		}
		settled(t, ctx, b, targets...)
	})
}
