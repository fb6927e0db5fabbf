// Package engine owns the daemon's state: one goroutine takes what was seen of the way out, lets plan decide,
// applies the decision to the kernel, and publishes the result. It is level-triggered: whatever woke it, it brings
// the kernel to the wanted state, and doing so twice changes nothing.
package engine

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"netvmd/internal/netvm"
	"netvmd/internal/plan"
)

// Uplinks is what the engine follows. Changed holds a token when there is something to Take.
type Uplinks interface {
	Changed() <-chan struct{}
	Take() netvm.View
}

// OwnAddresses follows the addresses of this machine.
type OwnAddresses interface {
	Changed() <-chan struct{}
	Take() []netip.Addr
}

// Vifs follows the vifs and what is wrong with them, a sentence each. Look hints that rules may have been lost, and with
// them who may send from where; it must not block.
type Vifs interface {
	Changed() <-chan struct{}
	Take() (vifs []netvm.Vif, problems []string)
	Look()
}

// Firewall brings the kernel to the wanted targets. Apply and Check return what was, or is, different; nothing
// different = nothing written. Loaded tells whether rules of ours, of whatever age, are in the kernel. Accelerate lets
// established flows over these devices take a short way, where there is one.
type Firewall interface {
	Name() string
	Loaded(ctx context.Context) (bool, error)
	Apply(ctx context.Context, targets []netvm.Target) (changes []string, err error)
	Check(ctx context.Context, targets []netvm.Target) (differences []string, err error)
	Accelerate(ctx context.Context, devices []string) error
}

// Flows forgets established flows to resolvers that are no target any more: PurgeDead those that no answer can
// reach, PurgeStale all of them. Both stop when ctx ends, before the next flow: what counts as stale is about to
// change then.
type Flows interface {
	PurgeDead(ctx context.Context, targets []netvm.Target) (int, error)
	PurgeStale(ctx context.Context, targets []netvm.Target) (int, error)
}

// Publisher shows a status to whoever asks; it must not block.
type Publisher interface{ Publish(netvm.Status) }

// Dependants are told that the targets changed; it must not block.
type Dependants interface{ TargetsChanged() }

// Source is something outside that is read. Refresh has it read again, and returns when what was read can be taken, or was
// given to Configure; its error names what does not answer.
type Source interface {
	Refresh(ctx context.Context) error
}

// Settings are what the configuration, the store and callers on the bus say, and may change while the daemon runs.
type Settings struct {
	Virtual     []netip.Addr
	Servers     []netip.Addr
	Source      string
	Overrides   []netvm.Override // the newest, which is in force, first
	PassThrough bool             // this netvm's uplink is served by another netvm
	Above       []netip.Addr     // the nameservers that it gives this one
	NextGateway netip.Addr       // its address towards this one; the zero Addr = unknown
	OnlyWarn    bool             // say what others changed in our rules, and leave it
	Problems    []string         // what is wrong with the settings themselves, to be published
}

// Parts is what an engine is made of; all are needed.
type Parts struct {
	Version    string
	Uplinks    Uplinks
	Own        OwnAddresses
	Vifs       Vifs
	Firewall   Firewall
	Flows      Flows
	Publisher  Publisher
	Dependants Dependants
	Sources    []Source // what Refresh has read again
	Log        *slog.Logger
	// SecondLook is how long after a change flows to former resolvers are left to receive their answer.
	SecondLook time.Duration
}

const (
	// kernelDeadline bounds one apply or purge; systemd's watchdog is the longer stop.
	kernelDeadline = 10 * time.Second
	// firstRetry and lastRetry bound the pause after an apply that failed; it doubles in between.
	firstRetry, lastRetry = 100 * time.Millisecond, 30 * time.Second
	// purgeRetry is the pause after a purge that failed.
	purgeRetry = 2 * time.Second
)

// Engine is the daemon's heart. Make one with New, then Run it.
type Engine struct {
	Parts
	settings chan news   // capacity 1, the latest
	drift    chan string // capacity 1, the earliest
	calls    chan func() // what others want done in the engine's goroutine
	asks     chan ask
	writes   atomic.Uint64 // how often an apply changed the kernel
	ready    chan struct{}

	// All below is owned by the goroutine of Run.
	now     Settings
	view    netvm.View
	seen    bool // a first view is in
	own     []netip.Addr
	seenOwn bool // so are the own addresses

	vifs        []netvm.Vif
	vifProblems []string
	fast        []string // the uplinks' devices that were accelerated

	decision   plan.Decision
	applied    []netvm.Target // what the kernel was last brought to; nil before the first time
	published  netvm.Status
	statistics netvm.Statistics
	latencies  latencies
	changedAt  time.Time
	applyTime  time.Duration

	failure string // why the last apply failed; "" = it did not
	pause   time.Duration
	drifted []string // what others changed and OnlyWarn leaves alone
	retry   *time.Timer
	purge   *purge
	asked   []ask // what waits for the next apply
}

// New makes an engine of its parts.
func New(p Parts, s Settings) *Engine {
	return &Engine{
		Parts:    p,
		now:      s,
		settings: make(chan news, 1),
		drift:    make(chan string, 1),
		calls:    make(chan func()),
		asks:     make(chan ask),
		ready:    make(chan struct{}),
		retry:    stopped(),
		purge:    newPurge(p),
	}
}

func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// Ready is closed once the kernel follows a complete view.
func (e *Engine) Ready() <-chan struct{} { return e.ready }

// news are settings, and when the oldest came that they answer.
type news struct {
	Settings
	arrived time.Time
}

// Configure replaces the settings; of several the last counts.
func (e *Engine) Configure(s Settings) {
	n := news{s, time.Now()}
	for {
		select {
		case e.settings <- n:
			return
		case before := <-e.settings:
			n.arrived = before.arrived
		}
	}
}

// Drifted hints that somebody may have changed our objects in the kernel. Hints that come faster than they are
// looked at count as one.
func (e *Engine) Drifted(who string) {
	select {
	case e.drift <- who:
	default:
	}
}
