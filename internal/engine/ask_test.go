package engine

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"netvmd/internal/netvm"
)

// asker is a fake of what Refresh has read again.
type asker func(context.Context) error

func (a asker) Refresh(ctx context.Context) error { return a(ctx) }

func override(server string) netvm.Override {
	return netvm.Override{Servers: []netip.Addr{netip.MustParseAddr(server)}, Holder: ":1.7", By: "vpn (pid 7, user 0)"}
}

// overridden are the settings with overrides, the newest first.
func overridden(servers ...string) Settings {
	s := settings
	for _, a := range servers {
		s.Overrides = append(s.Overrides, override(a))
	}
	return s
}

func (b *bench) patiently() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.t.Cleanup(cancel)
	return ctx
}

// settled gives settings to the engine and checks what the kernel has when Settle returns.
func (b *bench) settled(s Settings, want string) {
	b.t.Helper()
	b.Configure(s)
	if err := b.Settle(b.patiently()); err != nil {
		b.t.Fatal(err)
	}
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	if got := text(b.kernel.targets); got != want {
		b.t.Errorf("the kernel has %s, want %s", got, want)
	}
}

func TestNewestOverrideWinsAndTheOneBeforeComesBack(t *testing.T) {
	b := start(t, settings, nil)
	b.uplinks.put(view("192.0.2.1"))
	b.targets("10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.1")
	b.settled(overridden("203.0.113.1"), "10.139.1.1>203.0.113.1 10.139.1.2>203.0.113.1")
	b.settled(overridden("203.0.113.2", "203.0.113.1"), "10.139.1.1>203.0.113.2 10.139.1.2>203.0.113.2")
	s := b.until("both overrides", func(s netvm.Status) bool { return len(s.DNSOverrides) == 2 })
	if s.DNSSource != "override" || !strings.Contains(s.DNSReason, "vpn (pid 7, user 0)") ||
		!reflect.DeepEqual(s.DNSOverrides, overridden("203.0.113.2", "203.0.113.1").Overrides) {
		t.Errorf("%s: %s; %+v", s.DNSSource, s.DNSReason, s.DNSOverrides)
	}
	b.settled(overridden("203.0.113.1"), "10.139.1.1>203.0.113.1 10.139.1.2>203.0.113.1")
	b.settled(settings, "10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.1")
	b.until("no override", func(s netvm.Status) bool { return len(s.DNSOverrides) == 0 && s.DNSSource == "networkmanager" })
}

func TestOverrideOfBeforeTheStartIsTheFirstThingInTheKernel(t *testing.T) {
	b := start(t, overridden("203.0.113.1"), nil)
	b.uplinks.put(view("192.0.2.1"))
	b.targets("10.139.1.1>203.0.113.1 10.139.1.2>203.0.113.1")
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	for _, line := range b.kernel.log {
		if strings.Contains(line, "192.0.2.1") {
			t.Errorf("queries went to the uplink's resolver: %q", b.kernel.log)
		}
	}
}

func TestUplinkThatChangesLeavesTheOverrideInForce(t *testing.T) {
	b := start(t, overridden("203.0.113.1"), nil)
	b.uplinks.put(view("192.0.2.1"))
	b.targets("10.139.1.1>203.0.113.1 10.139.1.2>203.0.113.1")
	next := view("192.0.2.2")
	next.State = netvm.Limited
	b.uplinks.put(next)
	s := b.until("the view", func(s netvm.Status) bool { return s.State == netvm.Limited })
	if s.Statistics.Applies != 1 || text(s.DNSTargets) != "10.139.1.1>203.0.113.1 10.139.1.2>203.0.113.1" {
		t.Errorf("%d applies: %s", s.Statistics.Applies, text(s.DNSTargets))
	}
}

func TestWhoSettlesHearsWhatTheKernelRefuses(t *testing.T) {
	b := start(t, settings, func(b *bench) { b.kernel.loaded = true })
	b.uplinks.put(view("192.0.2.1"))
	b.targets("10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.1")
	b.kernel.mu.Lock()
	b.kernel.broken = errors.New("no memory")
	b.kernel.mu.Unlock()
	b.Configure(overridden("203.0.113.1"))
	if err := b.Settle(b.patiently()); err == nil || !strings.Contains(err.Error(), "no memory") {
		t.Errorf("%v", err)
	}
	b.kernel.mu.Lock()
	b.kernel.broken = nil
	b.kernel.mu.Unlock()
	b.targets("10.139.1.1>203.0.113.1 10.139.1.2>203.0.113.1") // it is tried again, whoever waits
}

func TestSettleWaitsForTheFirstViewAndNoLongerThanItsCaller(t *testing.T) {
	b := start(t, overridden("203.0.113.1"), nil)
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := b.Settle(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("settled before anything is known: %v", err)
	}
	settled := make(chan error, 1)
	go func() { settled <- b.Settle(b.patiently()) }()
	b.uplinks.put(view("192.0.2.1"))
	if err := <-settled; err != nil {
		t.Error(err)
	}
	b.targets("10.139.1.1>203.0.113.1 10.139.1.2>203.0.113.1")
}

func TestServersAreCheckedByWhatIsKnownNow(t *testing.T) {
	b := start(t, settings, nil)
	b.uplinks.put(view("192.0.2.1"))
	b.own.put([]netip.Addr{netip.MustParseAddr("192.0.2.7")})
	b.until("the first apply", func(s netvm.Status) bool { return len(s.DNSTargets) > 0 })
	if err := b.Settle(b.patiently()); err != nil { // the own addresses are in
		t.Fatal(err)
	}
	var invalid netvm.InvalidError
	if err := b.CheckServers(b.patiently(), override("192.0.2.7").Servers); !errors.As(err, &invalid) {
		t.Errorf("an own address: %v", err)
	}
	if err := b.CheckServers(b.patiently(), override("192.0.2.8").Servers); err != nil {
		t.Error(err)
	}
}

func TestRefreshReadsEverySourceAndComparesTheKernelInWhole(t *testing.T) {
	reads := make(chan string, 10)
	b := start(t, settings, func(b *bench) {
		b.Sources = []Source{
			asker(func(context.Context) error { reads <- "uplinks"; b.uplinks.put(view("192.0.2.2")); return nil }),
			asker(func(context.Context) error { reads <- "own"; return nil }),
		}
	})
	b.uplinks.put(view("192.0.2.1"))
	b.targets("10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.1")
	refresh := func(want bool, what string) {
		t.Helper()
		if changed, err := b.Refresh(b.patiently()); changed != want || err != nil {
			t.Errorf("%s: changed %t, %v", what, changed, err)
		}
		if len(reads) != 2 {
			t.Errorf("%s: %d sources were read", what, len(reads))
		}
		for len(reads) > 0 {
			<-reads
		}
	}
	refresh(true, "a change that no signal told of")
	b.targets("10.139.1.1>192.0.2.2 10.139.1.2>192.0.2.2")
	refresh(false, "nothing is different")
	b.kernel.lose()
	refresh(true, "somebody changed the kernel")
	select {
	case <-b.vifs.looks:
	case <-time.After(patience):
		t.Error("nobody looks at the vifs")
	}
}

func TestRefreshAppliesWhatIsKnownAlthoughASourceIsSilent(t *testing.T) {
	t.Parallel() // it takes readingDeadline
	b := start(t, settings, func(b *bench) {
		b.Sources = []Source{
			asker(func(ctx context.Context) error {
				<-ctx.Done()
				return errors.Join(errors.New("NetworkManager does not answer"), ctx.Err())
			}),
			asker(func(context.Context) error { b.own.put([]netip.Addr{netip.MustParseAddr("192.0.2.1")}); return nil }),
		}
	})
	b.uplinks.put(view("192.0.2.1", "192.0.2.2"))
	b.targets("10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.2")
	changed, err := b.Refresh(b.patiently())
	if !changed || err == nil || err.Error() != "NetworkManager does not answer; context deadline exceeded" ||
		!errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("changed %t, %v", changed, err)
	}
	b.targets("10.139.1.1>192.0.2.2 10.139.1.2>192.0.2.2")
}

func TestRefreshMendsEvenWhatOnDriftWarnLeaves(t *testing.T) {
	s := settings
	s.OnlyWarn = true
	b := start(t, s, nil)
	b.uplinks.put(view("192.0.2.1"))
	b.targets("10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.1")
	b.kernel.lose()
	b.Drifted("nft (pid 7)")
	b.until("the problem", func(s netvm.Status) bool { return len(s.Problems) == 1 })
	if changed, err := b.Refresh(b.patiently()); !changed || err != nil {
		t.Errorf("changed %t, %v", changed, err)
	}
	b.until("no problem", func(s netvm.Status) bool { return len(s.Problems) == 0 && s.Statistics.Restored == 1 })
}

func TestLatenciesAreCounted(t *testing.T) {
	b := start(t, settings, nil)
	b.uplinks.put(view("192.0.2.1"))
	s := b.targets("10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.1")
	if l := s.Statistics.Latency; l.Count != 1 || l.Max != s.ApplyTime || l.P50 != s.ApplyTime {
		t.Errorf("%+v after an apply of %s", l, s.ApplyTime)
	}
}
