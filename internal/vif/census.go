package vif

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"netvmd/internal/netvm"
	"netvmd/internal/rtnetlink"
)

const (
	// lookPause is the least time between two looks: of 256 vifs that come up at once, many are seen in one.
	lookPause = 100 * time.Millisecond
	// lookShare is how many times as long as reading everything took the pause is, up to longestPause: so looks take a
	// fifth of a processor at most.
	lookShare    = 4
	longestPause = 500 * time.Millisecond
	// lookTimeout bounds one look with all that it mends. It takes some milliseconds; with iptables, each vif that must
	// be admitted again takes as many more.
	lookTimeout = 30 * time.Second
	// firstRetry and lastRetry bound the pause before a vif is mended again that was not sound after it; it doubles in
	// between.
	firstRetry, lastRetry = 100 * time.Millisecond, 30 * time.Second
	// offlineGrace is how long the record of a device that is gone is left to the hotplug program, which the toolstack
	// runs after it has taken the device away.
	offlineGrace = 2 * time.Second
)

// Census follows the vifs: their records, and what the kernel and the firewall have of them. An event only says that
// something may be different: then all vifs are looked at again, together. What drifted from its record is mended, and
// what is left of a device that is gone is taken away.
type Census struct {
	setup   *Setup
	log     *slog.Logger
	changed chan struct{}
	dirty   chan struct{}
	known   interests

	mu       sync.Mutex
	onlyWarn bool
	looked   bool
	vifs     []netvm.Vif
	problems []string

	// Owned by the goroutine of Run.
	cares   map[string]*care
	records shelf
}

// NewCensus returns one that follows nothing until Run, and works through an open setup that nobody else uses.
func NewCensus(setup *Setup) *Census {
	return &Census{
		setup: setup, log: setup.Log, cares: map[string]*care{}, records: shelf{},
		changed: make(chan struct{}, 1), dirty: make(chan struct{}, 1),
	}
}

// Changed has a token when Take returns something else than before. The first comes after the first look.
func (c *Census) Changed() <-chan struct{} { return c.changed }

// Take returns the vifs that have a record and a device, ordered by domain and device, and what is wrong with vifs now, a
// sentence each. The caller must not change the slices.
func (c *Census) Take() ([]netvm.Vif, []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.vifs, c.problems
}

// Configure says whether drift is mended or, with onlyWarn, only said, and looks again.
func (c *Census) Configure(onlyWarn bool) {
	c.mu.Lock()
	c.onlyWarn = onlyWarn
	c.mu.Unlock()
	c.Look()
}

// Look hints that something may be different. It does not block; hints that come faster than the looks count as one.
func (c *Census) Look() {
	select {
	case c.dirty <- struct{}{}:
	default:
	}
}

// Run follows until ctx ends, and returns nil then. Trouble with the kernel is logged and overcome.
func (c *Census) Run(ctx context.Context) error {
	var followers sync.WaitGroup
	for what, follow := range map[string]func(context.Context) error{
		"vifs": c.followKernel, "records of vifs": c.followRecords,
	} {
		followers.Add(1)
		go func() {
			defer followers.Done()
			rtnetlink.Persist(ctx, c.log, what, follow)
		}()
	}
	c.keepLooking(ctx)
	followers.Wait()
	return nil
}

// keepLooking looks when something may be different, or when something is to be tried again: at once, and then not
// before the pause has passed.
func (c *Census) keepLooking(ctx context.Context) {
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		if next := c.nextCare(); next.IsZero() {
			again.Stop()
		} else {
			again.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case <-c.dirty:
		case <-again.C:
		}
		surveyed := c.look(ctx)
		if !rtnetlink.Sleep(ctx, min(max(lookPause, lookShare*surveyed), longestPause)) {
			return
		}
	}
}

// look takes the census once, and says how long reading everything took.
func (c *Census) look(ctx context.Context) (surveyed time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	began := time.Now()
	l, err := c.setup.survey(ctx, c.records)
	surveyed = time.Since(began)
	if err != nil {
		c.failed(err)
		return surveyed
	}
	delete(c.cares, everything)
	c.known.set(l.devices)
	vifs, problems := c.attendAll(ctx, l)
	grace := offlineGrace
	if !c.looked { // at the start, the hotplug program has had all the time
		grace = 0
	}
	problems = append(problems, c.forget(ctx, l, grace)...)
	c.dropCares(l)
	c.put(vifs, problems)
	c.log.Debug("looked at the vifs", "vifs", len(vifs), "took", time.Since(began).Round(time.Microsecond))
	return surveyed
}

// attendAll goes through the vifs whose devices are there.
func (c *Census) attendAll(ctx context.Context, l *land) (vifs []netvm.Vif, problems []string) {
	c.mu.Lock()
	onlyWarn := c.onlyWarn
	c.mu.Unlock()
	var names []string
	for _, spec := range l.records {
		if l.devices[spec.Name] == nil {
			continue
		}
		vif := spec.Vif
		var problem string
		vif.State, problem = c.attend(ctx, l, spec, onlyWarn)
		if problem != "" {
			problems = append(problems, problem)
		}
		vifs, names = append(vifs, vif), append(names, vif.Name)
	}
	for name, err := range l.broken {
		problems = append(problems, fmt.Sprintf("The record of %s is not understood (%s), so nothing is known of this vif. "+
			"Detach the AppVM's card and attach it again.", name, oneLine(err)))
	}
	slices.Sort(problems)
	// Rules that were loaded anew know no devices.
	if err := c.setup.Gate.Accelerate(ctx, names); err != nil {
		c.log.Warn("established flows of vifs take the long way", "error", err)
	}
	return vifs, problems
}

// failed leaves what was seen before, says why, and tries again later.
func (c *Census) failed(err error) {
	c.care(everything, Spec{}, "").later()
	c.mu.Lock()
	vifs := c.vifs
	c.mu.Unlock()
	c.put(vifs, []string{"The vifs cannot be looked at: " + oneLine(err) + ". What was seen last is shown; it is tried again."})
}

// put gives a token if something is different.
func (c *Census) put(vifs []netvm.Vif, problems []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	same := c.looked && reflect.DeepEqual(vifs, c.vifs) && reflect.DeepEqual(problems, c.problems)
	c.vifs, c.problems, c.looked = vifs, problems, true
	if same {
		return
	}
	select {
	case c.changed <- struct{}{}:
	default: // the last one was not received yet
	}
}
