package firewall

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"netvmd/internal/netvm"
)

// openConntrack opens conntrack in the router's namespace.
func openConntrack(t testing.TB) *Conntrack {
	t.Helper()
	c, err := NewConntrack()
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func TestAnAnswerInFlightDuringAChangeArrives(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		ct := openConntrack(t)
		for _, step := range []struct{ virtual, before, after netip.Addr }{
			{virtual1, resolverA, resolverB}, {virtual6, resolverA6, resolverB6}, {virtual2, resolverA, netip.Addr{}},
		} {
			apply(t, ctx, b, to(step.virtual, step.before))
			conn, err := n.dial("udp", netip.AddrPortFrom(step.virtual, dnsPort), 0)
			must(t, err)
			answers := make(chan string, 1)
			go func() {
				who, err := query(conn, "hold")
				if err != nil {
					who = err.Error()
				}
				answers <- who
			}()
			select {
			case <-n.held:
			case <-time.After(patience):
				t.Fatal("the query did not arrive")
			}
			after := []netvm.Target{to(step.virtual, step.after)}
			if !step.after.IsValid() {
				after[0] = unserved(step.virtual)
			}
			apply(t, ctx, b, after...)
			if purged, err := ct.PurgeDead(ctx, after); purged != 0 || err != nil {
				t.Errorf("PurgeDead purged %d, %v; the answer can still arrive", purged, err)
			}
			n.release <- struct{}{}
			if answer := <-answers; answer != step.before.String() {
				t.Errorf("%s: the held answer was %s, want that of %s", step.virtual, answer, step.before)
			}
			if purged, err := ct.PurgeStale(ctx, after); purged != 1 || err != nil {
				t.Errorf("PurgeStale purged %d, %v; want the one flow to the old resolver", purged, err)
			}
			must(t, conn.Close())
		}
	})
}

func TestNoQueryIsLostThroughManyChanges(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		ct := openConntrack(t)
		apply(t, ctx, b, to(virtual1, resolverA), to(virtual2, resolverA))
		answered := make(chan struct{}, 1)
		stop, failed := make(chan struct{}), make(chan error, 2)
		for i, fixed := range []bool{true, false} {
			first, err := n.dial("udp", netip.AddrPortFrom([]netip.Addr{virtual1, virtual2}[i], dnsPort), 0)
			must(t, err)
			go func() { failed <- n.askUntil(stop, first, fixed, answered) }()
		}
		targets := [][]netvm.Target{
			{to(virtual1, resolverB), to(virtual2, resolverB)},
			{to(virtual1, resolverA), to(virtual2, resolverA)},
		}
		changes := 200
		if b.Name() == KindIPTables {
			changes = 20 // a change is some fifteen processes
		}
		for i := range changes {
			apply(t, ctx, b, targets[i%2]...)
			if i%20 == 0 { // it looks at every flow, and these clients make thousands
				_, err := ct.PurgeDead(ctx, targets[i%2])
				must(t, err)
			}
			select {
			case <-answered:
			case err := <-failed:
				t.Fatal(err)
			}
		}
		close(stop)
		for range 2 {
			if err := <-failed; err != nil {
				t.Error(err)
			}
		}
	})
}

// askUntil asks in a tight loop, from one port or each time from a new one, and wants the answer of A or B each time.
func (n *topology) askUntil(stop chan struct{}, conn net.Conn, fixed bool, answered chan<- struct{}) error {
	runtime.LockOSThread() // never unlocked: the thread stays in the client's namespace and dies with it
	if err := netns.Set(n.client); err != nil {
		return err
	}
	defer func() { conn.Close() }()
	remote := conn.RemoteAddr().String()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return nil
		default:
		}
		if !fixed {
			conn.Close()
			var err error
			if conn, err = net.Dial("udp", remote); err != nil {
				return err
			}
		}
		who, err := query(conn, fmt.Sprint("query ", i))
		if err != nil || who != resolverA.String() && who != resolverB.String() {
			return fmt.Errorf("query %d to %s: answer of %q, %w", i, remote, who, errors.Join(err))
		}
		select {
		case answered <- struct{}{}:
		default:
		}
	}
}

func TestATCPConnectionToADeadAddressIsPurged(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		ct := openConntrack(t)
		apply(t, ctx, b, to(virtual1, resolverA))
		conn, err := n.dial("tcp", netip.AddrPortFrom(virtual1, dnsPort), 0)
		must(t, err)
		defer conn.Close()
		if who, err := query(conn, "who"); err != nil || who != resolverA.String() {
			t.Fatalf("answer of %q, %v", who, err)
		}
		after := []netvm.Target{to(virtual1, resolverB)}
		apply(t, ctx, b, after...)
		if who, err := query(conn, "who"); err != nil || who != resolverA.String() {
			t.Errorf("a connection to a resolver that is still there was cut: %q, %v", who, err)
		}

		// The uplink gets another address: no answer to the old one can arrive.
		addAddress(t, "up0", "192.0.2.253/24")
		n.run("ip", "address", "del", "192.0.2.254/24", "dev", "up0")
		n.run("ip", "address", "replace", "192.0.2.253/24", "dev", "up0")
		n.run("ip", "route", "replace", "default", "via", "192.0.2.1")
		purged, err := ct.PurgeDead(ctx, after)
		must(t, err)
		t.Logf("%d flows purged", purged)
		_, err = query(conn, "who")
		if err == nil || isTimeout(err) {
			t.Errorf("a connection pinned to the dead address ended with %v, want a reset at once", err)
		}
		n.mustReach(virtual1, resolverB)
	})
}

func TestPurgesCountWhatTheyDelete(t *testing.T) {
	for _, step := range []struct {
		name        string
		virtual     netip.Addr
		first       netip.Addr
		then        netvm.Target
		dead, stale int
	}{
		{"a flow to the current target stays", virtual1, resolverA, to(virtual1, resolverA), 0, 0},
		{"a flow to another resolver is stale", virtual1, resolverA, to(virtual1, resolverB), 0, 2},
		{"a flow of an address that is unserved now is stale", virtual1, resolverA, unserved(virtual1), 0, 2},
		{"an IPv6 flow to another resolver is stale", virtual6, resolverA6, to(virtual6, resolverB6), 0, 2},
		{"flows to other addresses are none of ours", virtual1, resolverA, to(virtual2, resolverB), 0, 0},
	} {
		t.Run(step.name, func(t *testing.T) {
			ctx := testContext(t)
			n := newTopology(t)
			b, err := newNFTables(ctx, Options{Log: testLog(t)})
			must(t, err)
			n.admit(ctx, b)
			ct := openConntrack(t)
			apply(t, ctx, b, to(step.virtual, step.first))
			n.mustReach(step.virtual, step.first)
			dead, err := ct.PurgeDead(ctx, []netvm.Target{step.then})
			must(t, err)
			stale, err := ct.PurgeStale(ctx, []netvm.Target{step.then})
			must(t, err)
			if dead != step.dead || stale != step.stale {
				t.Errorf("purged %d dead and %d stale, want %d and %d", dead, stale, step.dead, step.stale)
			}
			if again, err := ct.PurgeStale(ctx, []netvm.Target{step.then}); again != 0 || err != nil {
				t.Errorf("a second purge found %d, %v", again, err)
			}
		})
	}
}

func TestFlowsMasqueradedWithALostAddressAreDead(t *testing.T) {
	ctx := testContext(t)
	n := newTopology(t)
	// With `snat to`, unlike masquerade, the kernel itself forgets nothing when the address goes.
	n.nft(somebody)
	b, err := newNFTables(ctx, Options{Base: never, Log: testLog(t)})
	must(t, err)
	n.admit(ctx, b)
	ct := openConntrack(t)
	targets := []netvm.Target{to(virtual1, resolverA)}
	apply(t, ctx, b, targets...)
	n.mustReach(virtual1, resolverA)
	if dead, err := ct.PurgeDead(ctx, targets); dead != 0 || err != nil {
		t.Errorf("purged %d, %v while the address was there", dead, err)
	}
	n.run("ip", "address", "del", "192.0.2.254/24", "dev", "up0")
	if dead, err := ct.PurgeDead(ctx, targets); dead != 2 || err != nil {
		t.Errorf("purged %d, %v, want the UDP and the TCP flow", dead, err)
	}
}

// BenchmarkApply changes all targets. Its goroutine is bound to the thread that is in the namespace, so each wait for
// netlink costs two switches of threads that the daemon, which is not bound, has not: there, two targets took 0.4 ms.
func BenchmarkApply(bench *testing.B) {
	for name, open := range backends {
		bench.Run(name, func(bench *testing.B) {
			ctx := context.Background()
			newTopology(bench)
			b, err := open(ctx, Options{Log: testLog(bench)})
			must(bench, err)
			targets := [][]netvm.Target{
				{to(virtual1, resolverA), to(virtual2, resolverA), to(virtual6, resolverA6)},
				{to(virtual1, resolverB), to(virtual2, resolverC), to(virtual6, resolverB6)},
			}
			apply(bench, ctx, b, targets[0]...)
			bench.ResetTimer()
			for i := range bench.N {
				apply(bench, ctx, b, targets[(i+1)%2]...)
			}
		})
	}
}
