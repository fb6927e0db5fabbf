package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"netvmd/internal/netvm"
)

// source is a fake of nmhook and of the own addresses: like the real ones it holds the newest value only.
type source[T any] struct {
	mu      sync.Mutex
	value   T
	changed chan struct{}
}

func newSource[T any]() *source[T] { return &source[T]{changed: make(chan struct{}, 1)} }

func (s *source[T]) Changed() <-chan struct{} { return s.changed }

func (s *source[T]) Take() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value
}

func (s *source[T]) put(v T) {
	s.mu.Lock()
	s.value = v
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// kernel is a fake of the firewall and the flows. Like the real one it writes only differences.
type kernel struct {
	mu      sync.Mutex
	loaded  bool
	targets []netvm.Target
	broken  error
	devices []string
	log     []string // every write and purge, as text
	written chan struct{}
	hold    chan struct{} // when not nil, Apply waits for it
}

func (k *kernel) Name() string { return "fake" }

func (k *kernel) Loaded(context.Context) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.loaded, nil
}

func text(targets []netvm.Target) string {
	var b []string
	for _, t := range targets {
		to := "refused"
		if t.Served() {
			to = t.Resolver.Addr.String()
		}
		b = append(b, t.Virtual.String()+">"+to)
	}
	return strings.Join(b, " ")
}

func (k *kernel) note(format string, args ...any) {
	k.log = append(k.log, fmt.Sprintf(format, args...))
	select {
	case k.written <- struct{}{}:
	default:
	}
}

func (k *kernel) Apply(_ context.Context, targets []netvm.Target) ([]string, error) {
	if k.hold != nil {
		<-k.hold
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.broken != nil {
		k.note("failed")
		return nil, k.broken
	}
	k.loaded = true
	if slices.Equal(targets, k.targets) {
		return nil, nil
	}
	k.targets = slices.Clone(targets)
	k.note("%s", text(targets))
	return []string{"targets"}, nil
}

func (k *kernel) Check(_ context.Context, targets []netvm.Target) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Equal(targets, k.targets) {
		return []string{"targets differ"}, nil
	}
	return nil, nil
}

// lose is what somebody does who flushes the rules.
func (k *kernel) lose() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.targets = nil
}

func (k *kernel) Accelerate(_ context.Context, devices []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.devices = devices
	return nil
}

func (k *kernel) PurgeDead(_ context.Context, targets []netvm.Target) (int, error) {
	return k.purge("dead", targets)
}

func (k *kernel) PurgeStale(_ context.Context, targets []netvm.Target) (int, error) {
	return k.purge("stale", targets)
}

func (k *kernel) purge(what string, targets []netvm.Target) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.note("purge %s for %s", what, text(targets))
	return 0, nil
}

type statuses struct{ ch chan netvm.Status }

func (s statuses) Publish(st netvm.Status) { s.ch <- st }

type dependants struct {
	mu sync.Mutex
	n  int
}

func (d *dependants) TargetsChanged() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
}

type bench struct {
	*Engine
	t       *testing.T
	vifs    census
	uplinks *source[netvm.View]
	own     *source[[]netip.Addr]
	kernel  *kernel
	told    *dependants
	status  chan netvm.Status
}

var settings = Settings{Virtual: []netip.Addr{netip.MustParseAddr("10.139.1.1"), netip.MustParseAddr("10.139.1.2")}}

func start(t *testing.T, s Settings, change func(*bench)) *bench {
	b := &bench{
		t: t, vifs: census{newSource[[]netvm.Vif](), make(chan struct{}, 1)}, uplinks: newSource[netvm.View](), own: newSource[[]netip.Addr](),
		kernel: &kernel{written: make(chan struct{}, 1)}, told: &dependants{}, status: make(chan netvm.Status, 1000),
	}
	b.Engine = New(Parts{
		Version: "test", Uplinks: b.uplinks, Own: b.own, Vifs: b.vifs, Firewall: b.kernel, Flows: b.kernel,
		Publisher: statuses{b.status}, Dependants: b.told, SecondLook: time.Millisecond,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}, s)
	if change != nil {
		change(b)
	}
	b.own.put(nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return b
}

func view(servers ...string) netvm.View {
	v := netvm.View{State: netvm.Online, Signals: 1, Arrived: time.Now()}
	e := netvm.DNSEntry{Interface: "eth0", Priority: 100}
	for _, s := range servers {
		e.Servers = append(e.Servers, netip.MustParseAddr(s))
	}
	v.NetworkManager = netvm.NetworkManagerDNS{Running: true, Entries: []netvm.DNSEntry{e}}
	return v
}

const patience = 10 * time.Second

// until waits for a published status that holds.
func (b *bench) until(what string, holds func(netvm.Status) bool) netvm.Status {
	b.t.Helper()
	deadline := time.After(patience)
	var last netvm.Status
	for {
		select {
		case last = <-b.status:
			if holds(last) {
				return last
			}
		case <-deadline:
			b.t.Fatalf("%s: not within %s; the last status was %+v", what, patience, last)
		}
	}
}

func (b *bench) targets(want string) netvm.Status {
	b.t.Helper()
	return b.until(want, func(s netvm.Status) bool { return text(s.DNSTargets) == want })
}

// wrote waits until the kernel's log holds the lines, in this order, among others.
func (b *bench) wrote(want ...string) {
	b.t.Helper()
	deadline := time.After(patience)
	for {
		b.kernel.mu.Lock()
		log := slices.Clone(b.kernel.log)
		b.kernel.mu.Unlock()
		rest := want
		for _, l := range log {
			if len(rest) > 0 && l == rest[0] {
				rest = rest[1:]
			}
		}
		if len(rest) == 0 {
			return
		}
		select {
		case <-b.kernel.written:
		case <-deadline:
			b.t.Fatalf("the kernel was never told %q; it was told %q", rest, log)
		}
	}
}

const refused = "10.139.1.1>refused 10.139.1.2>refused"

func TestFailsClosedUntilTheUplinkIsKnown(t *testing.T) {
	b := start(t, settings, nil)
	b.wrote(refused)
	select {
	case <-b.Ready():
		t.Error("ready before anything was read")
	default:
	}
	b.uplinks.put(view("192.0.2.53"))
	b.targets("10.139.1.1>192.0.2.53 10.139.1.2>192.0.2.53")
	<-b.Ready()
}

func TestLastGoodRulesStayUntilTheUplinkIsKnown(t *testing.T) {
	b := start(t, settings, func(b *bench) { b.kernel.loaded = true })
	b.uplinks.put(view("192.0.2.53"))
	b.targets("10.139.1.1>192.0.2.53 10.139.1.2>192.0.2.53")
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	if b.kernel.log[0] == refused {
		t.Error("the rules of the run before were replaced by refusals")
	}
}

func TestSameStateTwiceWritesOnceAndTellsDependantsOnce(t *testing.T) {
	b := start(t, settings, nil)
	b.uplinks.put(view("192.0.2.53"))
	b.targets("10.139.1.1>192.0.2.53 10.139.1.2>192.0.2.53")
	again := view("192.0.2.53")
	again.State = netvm.Portal // so that a status is published
	b.uplinks.put(again)
	s := b.until("the portal", func(s netvm.Status) bool { return s.State == netvm.Portal })
	if s.Statistics.Applies != 1 || b.told.n != 1 {
		t.Errorf("%d applies, dependants told %d times", s.Statistics.Applies, b.told.n)
	}
}

func TestWhatNetworkManagerSaysOfItselfIsPublished(t *testing.T) {
	b := start(t, settings, nil)
	s := b.until("the status before the first look", func(netvm.Status) bool { return true })
	if !s.NMRunning {
		t.Error("NetworkManager is said not to run before anybody has looked")
	}
	away := view("192.0.2.53")
	away.NetworkManager.Running = false
	b.uplinks.put(away)
	b.until("NetworkManager is away", func(s netvm.Status) bool { return !s.NMRunning })
	portal := view("192.0.2.53")
	portal.NetworkManager.Running, portal.State, portal.PortalURL = true, netvm.Portal, "http://example.org/"
	b.uplinks.put(portal)
	b.until("the portal and its address", func(s netvm.Status) bool {
		return s.NMRunning && s.State == netvm.Portal && s.PortalURL == "http://example.org/"
	})
}

func TestEveryChangeIsFollowedByBothLooksAtTheFlows(t *testing.T) {
	b := start(t, settings, nil)
	b.uplinks.put(view("192.0.2.53"))
	const targets = "10.139.1.1>192.0.2.53 10.139.1.2>192.0.2.53"
	b.wrote(targets, "purge dead for "+targets, "purge stale for "+targets)
}

func TestBurstIsAppliedOnceAndCounted(t *testing.T) {
	hold := make(chan struct{})
	b := start(t, settings, func(b *bench) { b.kernel.loaded, b.kernel.hold = true, hold })
	b.uplinks.put(view("192.0.2.1"))
	hold <- struct{}{} // the first apply goes on; what comes meanwhile is answered at once
	b.targets("10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.1")
	burst := view("192.0.2.9")
	burst.Signals = 7
	b.uplinks.put(burst)
	hold <- struct{}{}
	s := b.targets("10.139.1.1>192.0.2.9 10.139.1.2>192.0.2.9")
	if s.Statistics.Coalesced != 6 || s.Statistics.Applies != 2 {
		t.Errorf("%+v", s.Statistics)
	}
	if s.ApplyTime <= 0 || s.ChangedAt.IsZero() {
		t.Errorf("no time given: %v, %v", s.ApplyTime, s.ChangedAt)
	}
}

func TestFailureKeepsWhatWasGoodIsAProblemAndIsTriedAgain(t *testing.T) {
	b := start(t, settings, nil)
	b.uplinks.put(view("192.0.2.1"))
	b.targets("10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.1")
	b.kernel.mu.Lock()
	b.kernel.broken = errors.New("no memory")
	b.kernel.mu.Unlock()
	b.uplinks.put(view("192.0.2.2"))
	s := b.until("the problem", func(s netvm.Status) bool { return len(s.Problems) > 0 })
	if !strings.Contains(s.Problems[0], "no memory") || text(s.DNSTargets) != "10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.1" {
		t.Errorf("%q with targets %s", s.Problems, text(s.DNSTargets))
	}
	b.kernel.mu.Lock()
	b.kernel.broken = nil
	b.kernel.mu.Unlock()
	if s := b.targets("10.139.1.1>192.0.2.2 10.139.1.2>192.0.2.2"); len(s.Problems) > 0 {
		t.Errorf("still a problem: %q", s.Problems)
	}
}

func TestWhatOthersChangedIsRestored(t *testing.T) {
	b := start(t, settings, nil)
	b.uplinks.put(view("192.0.2.1"))
	b.targets("10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.1")
	b.Drifted("nobody") // a hint without a change: nothing is counted
	b.kernel.lose()
	b.Drifted("nft (pid 7)")
	s := b.until("the restoration", func(s netvm.Status) bool { return s.Statistics.Restored > 0 })
	if s.Statistics.Applies != 1 || s.Statistics.Restored != 1 {
		t.Errorf("%+v", s.Statistics)
	}
	if b.told.n != 1 {
		t.Errorf("dependants were told %d times", b.told.n)
	}
}

func TestWhatOthersChangedIsOnlySaid(t *testing.T) {
	s := settings
	s.OnlyWarn = true
	b := start(t, s, nil)
	b.uplinks.put(view("192.0.2.1"))
	b.targets("10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.1")
	b.kernel.lose()
	b.Drifted("nft (pid 7)")
	b.until("the problem", func(s netvm.Status) bool {
		return len(s.Problems) == 1 && strings.Contains(s.Problems[0], "targets differ")
	})
	b.Configure(settings) // and "restore" mends it
	b.Drifted("")
	b.until("no problem", func(s netvm.Status) bool { return len(s.Problems) == 0 && s.Statistics.Restored == 1 })
}

func TestNewSettingsAreAppliedAtOnce(t *testing.T) {
	b := start(t, settings, nil)
	b.uplinks.put(view("192.0.2.1"))
	b.targets("10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.1")
	s := settings
	s.Virtual = settings.Virtual[:1]
	s.Servers = []netip.Addr{netip.MustParseAddr("203.0.113.1")}
	b.Configure(s)
	b.targets("10.139.1.1>203.0.113.1")
}

func TestBehindAnotherNetvmItsVirtualAddressesAreResolvers(t *testing.T) {
	b := start(t, settings, nil)
	b.uplinks.put(view("10.139.1.1", "10.139.1.2"))
	b.targets(refused)
	s := settings
	s.PassThrough = true
	b.Configure(s)
	b.targets("10.139.1.1>10.139.1.1 10.139.1.2>10.139.1.2")
}

func TestProblemsOfTheSettingsArePublished(t *testing.T) {
	s := settings
	s.Problems = []string{"the store is gone"}
	b := start(t, s, nil)
	b.until("the problem", func(st netvm.Status) bool { return slices.Equal(st.Problems, s.Problems) })
	b.Configure(settings)
	b.until("no problem", func(st netvm.Status) bool { return len(st.Problems) == 0 })
}

func TestOwnAddressIsNoTarget(t *testing.T) {
	b := start(t, settings, nil)
	b.uplinks.put(view("192.0.2.1", "192.0.2.2"))
	b.targets("10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.2")
	b.own.put([]netip.Addr{netip.MustParseAddr("192.0.2.2")})
	b.targets("10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.1")
}

func TestFaultsOfAViewArePublishedAsProblems(t *testing.T) {
	b := start(t, settings, nil)
	v := view("192.0.2.1")
	v.Faults = []string{"NetworkManager: nameservers: \"x\" is no address"}
	b.uplinks.put(v)
	b.until("the fault", func(s netvm.Status) bool { return slices.Equal(s.Problems, v.Faults) })
}

func TestAlive(t *testing.T) {
	b := start(t, settings, nil)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.Alive(ctx); err != nil {
		t.Error(err)
	}
	stuck := start(t, settings, func(b *bench) { b.kernel.loaded, b.kernel.hold = true, make(chan struct{}) })
	stuck.uplinks.put(view("192.0.2.1"))
	ctx, cancel = context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := stuck.Alive(ctx); err == nil {
		// The ping may have come before the view; now the loop is held for good.
		if err = stuck.Alive(ctx); err == nil {
			t.Error("an engine that is stuck in the kernel answers")
		}
	}
	close(stuck.kernel.hold)
}
