package firewall

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"netvmd/internal/netvm"
)

// openEverything opens the admin's chains for everything, so that nothing but the antispoofing stands in the way.
func (n *topology) openEverything(b Backend) {
	n.t.Helper()
	n.allow(b, customInput)
	n.allow(b, customForward)
}

// foreign are addresses that the AppVM at vif1.0 may not send from.
var foreign = map[string]netip.Addr{
	"another AppVM's address":      other4,
	"the gateway's address":        gateway4,
	"the uplink's address":         uplink4,
	"a resolver's address":         resolverA,
	"127.0.0.1":                    netip.MustParseAddr("127.0.0.1"),
	"0.0.0.0":                      netip.IPv4Unspecified(),
	"broadcast":                    netip.MustParseAddr("255.255.255.255"),
	"multicast":                    netip.MustParseAddr("224.0.0.251"),
	"a random address":             netip.MustParseAddr("198.51.100.77"),
	"the address next to its own":  client4.Prev(),
	"another AppVM's IPv6 address": other6,
	"the gateway's IPv6 address":   gateway6,
	"the uplink's IPv6 address":    uplink6,
	"its IPv4 address in IPv6":     netip.AddrFrom16(client4.As16()),
	"a random IPv6 address":        netip.MustParseAddr("2001:db8:77::1"),
}

// uncounted are dropped as well, but not counted as spoofed: a guest's own kernel sends from the former, and the kernel
// of the netvm lets no firewall see the last.
var uncounted = map[string]netip.Addr{
	"::":                   netip.IPv6Unspecified(),
	"a link-local address": netip.MustParseAddr("fe80::5"),
	"::1":                  netip.IPv6Loopback(),
}

// toAll makes a datagram from the address to each place.
func (n *topology) toAll(from netip.Addr, name string, places []at) []packet {
	var out []packet
	for _, place := range places {
		to := place.addr(from.Is4())
		out = append(out, n.datagram(from, to, fmt.Sprintf("from %s to %s", name, to)))
	}
	return out
}

func TestAVifSendsFromItsOwnAddressesAlone(t *testing.T) {
	overBackends(t, func(t *testing.T, _ context.Context, n *topology, b Backend) {
		n.openEverything(b)
		places := n.places()
		n.mustPass(n.client, client4, client6, places...)
		before, sent := n.spoofed(b), 0
		for name, from := range foreign {
			packets := n.toAll(from, name, places)
			n.send(n.client, packets...)
			sent += len(packets)
		}
		if counted := n.spoofed(b) - before; counted != sent {
			t.Errorf("%d packets are counted as spoofed, %d were sent", counted, sent)
		}
		for name, from := range uncounted {
			n.send(n.client, n.toAll(from, name, places)...)
		}
		if counted := n.spoofed(b) - before; counted != sent {
			t.Errorf("%d packets more are counted as spoofed", counted-sent)
		}
		n.mustPass(n.client, client4, client6, places...)
	})
}

// spoofed is how many packets of vifs were counted as spoofed.
func (n *topology) spoofed(b Backend) int {
	n.t.Helper()
	counters, err := b.Counters(context.Background())
	must(n.t, err)
	sum := 0
	for _, c := range counters {
		if c.Name == "spoofed" || c.Name == chainAllowed+" "+drop {
			sum += int(c.Packets)
		}
	}
	return sum
}

func TestNobodySpeaksAsARouterOrANeighbour(t *testing.T) {
	overBackends(t, func(t *testing.T, _ context.Context, n *topology, b Backend) {
		n.openEverything(b)
		socket := n.listen("the netvm", n.router)
		before := n.run("ip", "-6", "neigh") + n.run("ip", "-6", "route")
		linkLocal := netip.MustParseAddr("fe80::5")
		for _, kind := range []byte{134, 136, 137} {
			for _, from := range []netip.Addr{client6, other6, linkLocal} {
				n.send(n.client, neighbour(kind, from, gateway6, other6), neighbour(kind, from, gateway6, uplink6))
			}
		}
		n.mustPass(n.client, client4, client6, at{socket, gateway4, gateway6})
		if after := n.run("ip", "-6", "neigh") + n.run("ip", "-6", "route"); !sameLines(before, after) {
			t.Errorf("neighbours and routes were\n%s\nand are\n%s", before, after)
		}
	})
}

func sameLines(a, b string) bool {
	first, second := strings.Split(a, "\n"), strings.Split(b, "\n")
	slices.Sort(first)
	slices.Sort(second)
	return slices.Equal(first, second)
}

func TestNobodyElseSendsFromTheAddressOfAnAppVM(t *testing.T) {
	overBackends(t, func(_ *testing.T, _ context.Context, n *topology, b Backend) {
		n.openEverything(b)
		socket := n.listen("a socket of the netvm", n.router)
		places := []at{{socket, uplink4, uplink6}, {n.tap("the other AppVM", n.other), other4, other6}}
		n.send(n.server, n.toAll(client4, "an AppVM's", places)...)
		n.send(n.server, n.toAll(client6, "an AppVM's", places)...)
		n.send(n.server, n.toAll(other4, "its own", places)...)
		n.mustPass(n.server, resolverA, resolverA6, places...)
	})
}

func TestAVifWithoutAnAdmissionSendsNothing(t *testing.T) {
	overEmptyKernels(t, Options{}, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		_, err := b.Ensure(ctx, nil)
		must(t, err)
		n.openEverything(b)
		places := n.places()
		n.send(n.client, n.toAll(client4, "a closed vif", places)...)
		n.send(n.client, n.toAll(client6, "a closed vif", places)...)
		n.admit(ctx, b)
		n.mustPass(n.client, client4, client6, places...)
		must(t, b.Admit(ctx, "vif1.0", nil))
		n.send(n.client, n.toAll(client4, "a vif closed again", places)...)
		n.send(n.client, n.toAll(client6, "a vif closed again", places)...)
		n.admit(ctx, b)
		n.mustPass(n.client, client4, client6, places...)
	})
}

func TestAnAddressBelongsToOneVifAtATime(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		n.openEverything(b)
		places := []at{{n.tap("a host on the uplink", n.server), resolverA, resolverA6}}

		must(t, b.Admit(ctx, "vif2.0", []netip.Addr{other4, other6, client4, client6}))
		n.mustPass(n.other, client4, client6, places...)
		n.mustPass(n.other, other4, other6, places...)
		n.send(n.client, n.toAll(client4, "the old vif", places)...)
		n.send(n.client, n.toAll(client6, "the old vif", places)...)
		admitted(t, ctx, b, netvm.Admission{Vif: "vif2.0", Addr: other4}, netvm.Admission{Vif: "vif2.0", Addr: client4},
			netvm.Admission{Vif: "vif2.0", Addr: other6}, netvm.Admission{Vif: "vif2.0", Addr: client6})

		must(t, b.Expel(ctx, "vif2.0", []netvm.Admission{{Vif: "vif1.0", Addr: client4}, {Vif: "vif1.0", Addr: client6}}))
		n.mustPass(n.client, client4, client6, places...)
		for _, from := range []netip.Addr{client4, client6, other4, other6} {
			n.send(n.other, n.toAll(from, "a vif that was expelled", places)...)
		}
		n.mustPass(n.client, client4, client6, places...)
		admitted(t, ctx, b, netvm.Admission{Vif: "vif1.0", Addr: client4}, netvm.Admission{Vif: "vif1.0", Addr: client6})
		settled(t, ctx, b)

		must(t, b.Expel(ctx, "vif7.0", nil))
		admitted(t, ctx, b, netvm.Admission{Vif: "vif1.0", Addr: client4}, netvm.Admission{Vif: "vif1.0", Addr: client6})
		must(t, b.Expel(ctx, "vif1.0", nil))
		admitted(t, ctx, b)
		settled(t, ctx, b)
	})
}

// admitted wants exactly these to be admitted.
func admitted(t *testing.T, ctx context.Context, b Backend, want ...netvm.Admission) {
	t.Helper()
	got, err := b.Admitted(ctx)
	must(t, err)
	if !slices.Equal(got, ordered(want)) {
		t.Errorf("admitted are %v, want %v", got, want)
	}
}

func TestWhatNoVifCanHaveIsAnError(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, _ *topology, b Backend) {
		before, err := b.Admitted(ctx)
		must(t, err)
		for _, vif := range []string{"", "vif+", "+", "!", "vif1.0 -j ACCEPT", "a/b", "vif1.0\n", "--wait", "abcdefghijklmnop"} {
			if err := b.Admit(ctx, vif, []netip.Addr{client4}); err == nil {
				t.Errorf("vif %q was admitted", vif)
			}
			if err := b.Expel(ctx, "vif1.0", []netvm.Admission{{Vif: vif, Addr: client4}}); err == nil {
				t.Errorf("vif %q was an heir", vif)
			}
		}
		for _, addr := range []string{"0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255", "::", "::1",
			"fe80::1", "fe80::1%vif1.0", "ff02::1", "::ffff:10.137.0.5"} {
			if err := b.Admit(ctx, "vif1.0", []netip.Addr{client4, netip.MustParseAddr(addr)}); err == nil {
				t.Errorf("vif1.0 was admitted with %s", addr)
			}
		}
		if err := b.Admit(ctx, "vif1.0", []netip.Addr{{}}); err == nil {
			t.Error("vif1.0 was admitted with no address")
		}
		admitted(t, ctx, b, before...)
	})
}

func TestNobodyIsAdmittedWhereNothingIsLoaded(t *testing.T) {
	overEmptyKernels(t, Options{}, func(t *testing.T, ctx context.Context, _ *topology, b Backend) {
		if err := b.Admit(ctx, "vif1.0", []netip.Addr{client4}); err == nil {
			t.Error("vif1.0 was admitted, and nothing tells who was not")
		}
	})
}

func TestManyAdmissionsAtOnceLoseNothing(t *testing.T) {
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			n := newTopology(t)
			o := Options{Lock: filepath.Join(t.TempDir(), "run", "firewall.lock"), Log: testLog(t)}
			const vifs = 8
			var want []netvm.Admission
			errs := make(chan error, vifs+1)
			for i := range vifs {
				vif := fmt.Sprintf("vif%d.0", 10+i)
				addrs := []netip.Addr{netip.AddrFrom4([4]byte{10, 137, 1, byte(i)}), netip.MustParseAddr(fmt.Sprintf("fd09::%d", i+1))}
				for _, a := range addrs {
					want = append(want, netvm.Admission{Vif: vif, Addr: a})
				}
				go n.inThread(errs, func() error {
					b, err := open(ctx, o)
					if err != nil {
						return err
					}
					if _, err := b.Ensure(ctx, []netip.Addr{virtual1, virtual6}); err != nil {
						return err
					}
					return b.Admit(ctx, vif, addrs)
				})
			}
			go n.inThread(errs, func() error {
				b, err := open(ctx, o)
				for _, r := range []netip.Addr{resolverA, resolverB, resolverC} {
					if err == nil {
						_, err = b.Apply(ctx, []netvm.Target{to(virtual1, r), to(virtual6, resolverB6)})
					}
				}
				return err
			})
			for range vifs + 1 {
				must(t, <-errs)
			}
			b, err := open(ctx, o)
			must(t, err)
			admitted(t, ctx, b, want...)
			settled(t, ctx, b, to(virtual1, resolverC), to(virtual6, resolverB6))
		})
	}
}

// inThread does something in a thread of its own in the router's namespace.
func (n *topology) inThread(result chan<- error, do func() error) {
	runtime.LockOSThread() // never unlocked: the thread dies with its namespace
	err := netns.Set(n.router)
	if err == nil {
		err = do()
	}
	result <- err
}

// BenchmarkAdmit admits a new vif with an address of each family and expels it, beside others.
func BenchmarkAdmit(bench *testing.B) {
	for name, open := range backends {
		for _, others := range []int{1, 255} {
			bench.Run(fmt.Sprintf("%s/%d others", name, others), func(bench *testing.B) {
				ctx := context.Background()
				newTopology(bench)
				b, err := open(ctx, Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
				must(bench, err)
				_, err = b.Ensure(ctx, nil)
				must(bench, err)
				for i := range others {
					must(bench, b.Admit(ctx, fmt.Sprintf("vif%d.0", 100+i), []netip.Addr{
						netip.AddrFrom4([4]byte{10, 137, 9, byte(i)}), netip.MustParseAddr(fmt.Sprintf("fd09::9:%x", i)),
					}))
				}
				bench.ResetTimer()
				for range bench.N {
					must(bench, b.Admit(ctx, "vif1.0", []netip.Addr{client4, client6}))
					must(bench, b.Expel(ctx, "vif1.0", nil))
				}
			})
		}
	}
}
