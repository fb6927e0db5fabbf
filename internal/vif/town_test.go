package vif

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"netvmd/internal/netvm"
)

// gate is a fake of the firewall. Like the real one it lets an address belong to one vif at a time.
type gate struct {
	mu       sync.Mutex
	admitted map[netip.Addr]string
	admits   int
	broken   error
}

func (g *gate) Ensure(context.Context, []netip.Addr) ([]string, error) { return nil, nil }

func (g *gate) Accelerate(context.Context, []string) error { return nil }

func (g *gate) Admit(_ context.Context, vif string, addrs []netip.Addr) error {
	return g.rearrange(vif, addrs, vif)
}

func (g *gate) Expel(_ context.Context, vif string, heirs []netvm.Admission) error {
	for _, h := range heirs {
		if err := g.rearrange("", []netip.Addr{h.Addr}, h.Vif); err != nil {
			return err
		}
	}
	return g.rearrange(vif, nil, "")
}

// rearrange takes from a vif all that it has, and gives the addresses to the other.
func (g *gate) rearrange(from string, addrs []netip.Addr, to string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.admits++
	if g.broken != nil {
		return g.broken
	}
	for addr, vif := range g.admitted {
		if vif == from {
			delete(g.admitted, addr)
		}
	}
	for _, a := range addrs {
		g.admitted[a] = to
	}
	return nil
}

func (g *gate) Admitted(context.Context) ([]netvm.Admission, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []netvm.Admission
	for addr, vif := range g.admitted {
		out = append(out, netvm.Admission{Vif: vif, Addr: addr})
	}
	return out, nil
}

func (g *gate) Strays(context.Context) ([]netvm.Admission, error) { return nil, nil }

func (g *gate) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
}

func (g *gate) holder(addr string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.admitted[netip.MustParseAddr(addr)]
}

func (g *gate) calls() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.admits
}

type noFlows struct{}

func (noFlows) PurgeAddresses(context.Context, []netip.Addr) error { return nil }

// looks counts the looks of a census by what it logs.
type looks struct {
	slog.Handler
	n atomic.Int64
}

func (l *looks) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "looked at the vifs" {
		l.n.Add(1)
	}
	return nil
}

// town is a machine with vifs, on whose firewall and records a test has its hands.
type town struct {
	t    testing.TB
	ctx  context.Context
	dir  string
	gate *gate
	*Setup
	census *Census
	looks  *looks
}

func newTown(t testing.TB) *town {
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	w := &town{
		t: t, ctx: ctx, dir: t.TempDir(), gate: &gate{admitted: map[netip.Addr]string{}},
		looks: &looks{Handler: slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug})},
	}
	w.Setup = w.open(slog.New(slog.NewTextHandler(io.Discard, nil)))
	w.census = NewCensus(w.open(slog.New(w.looks)))
	return w
}

func (w *town) open(log *slog.Logger) *Setup {
	w.t.Helper()
	s := &Setup{Gate: w.gate, Flows: noFlows{}, Log: log}
	if err := s.Open(w.dir); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Close)
	return s
}

// run runs the census until the test ends.
func (w *town) run() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.census.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
}

func (w *town) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// spec is that of a vif with these addresses.
func spec(domID int, addrs ...string) Spec {
	s := Spec{Vif: netvm.Vif{
		Name: fmt.Sprintf("vif%d.0", domID), DomID: domID, Metric: metricOf(domID), MAC: fmt.Sprintf("00:16:3e:00:%02x:%02x", domID>>8, domID&0xff),
		Gateway: netip.MustParseAddr("10.137.0.6"),
	}}
	for _, a := range addrs {
		s.Addresses = append(s.Addresses, netip.MustParseAddr(a))
	}
	if s.hasIPv6() {
		s.Gateway6 = netip.MustParseAddr("fd00::6")
	}
	return s
}

// plug makes the device of a vif, as Xen does.
func (w *town) plug(name string) {
	w.t.Helper()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "p" + name}
	w.must(netlink.LinkAdd(link))
	w.t.Cleanup(func() { _ = netlink.LinkDel(link) }) // some tests delete it themselves
}

// live plugs a vif in and brings it up.
func (w *town) live(s Spec) {
	w.t.Helper()
	w.plug(s.Name)
	w.must(w.Online(w.ctx, s))
}

func (w *town) link(name string) netlink.Link {
	w.t.Helper()
	l, err := netlink.LinkByName(name)
	w.must(err)
	return l
}

// until waits until what the census says holds.
func (w *town) until(what string, holds func(vifs []netvm.Vif, problems []string) bool) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		vifs, problems := w.census.Take()
		if holds(vifs, problems) {
			return
		}
		select {
		case <-w.census.Changed():
		case <-deadline:
			w.t.Fatalf("%s: not within %s; vifs %+v, problems %q", what, patience, vifs, problems)
		}
	}
}

// vifsAre waits until these vifs are there, in order; a trailing "!" means degraded.
func (w *town) vifsAre(names ...string) {
	w.t.Helper()
	w.until(fmt.Sprint(names), func(vifs []netvm.Vif, _ []string) bool {
		return slices.EqualFunc(vifs, names, func(v netvm.Vif, name string) bool {
			plain, degraded := strings.CutSuffix(name, "!")
			return v.Name == plain && degraded == (v.State == netvm.VifDegraded)
		})
	})
}

// sound waits until a vif is in the kernel and the firewall as its record says.
func (w *town) sound(s Spec) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		l, err := w.survey(w.ctx, shelf{})
		w.must(err)
		d := l.drift(s)
		if len(d.all()) == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: still %q", s.Name, d.all())
		}
	}
}
