package engine

import (
	"context"
	"slices"
	"time"

	"netvmd/internal/netvm"
	"netvmd/internal/plan"
)

// cause is why the engine woke up: several at once are answered together.
type cause struct {
	arrived time.Time // when the first of them came
	signals int       // how many signals of the outside it answers
	drift   bool
	who     string // who is said to have changed our objects
	restore bool   // what others changed is mended even with OnlyWarn: somebody asked for it
}

// Run follows everything until ctx ends. The kernel is left as it is then: packets go on as they were.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.failClosed(ctx); err != nil {
		return err
	}
	purging := make(chan struct{})
	go func() {
		defer close(purging)
		e.purge.run(ctx)
	}()
	defer func() { <-purging }()
	e.publish()
	for {
		c, ok := e.wait(ctx)
		if !ok {
			return nil
		}
		e.drain(&c)
		if e.seen && e.seenOwn {
			e.decide()
			err := e.apply(ctx, c)
			e.publish() // before those who wait are told, and look
			e.answer(err)
			e.accelerate(ctx, c.drift)
		} else { // a decision would be one for a netvm without an uplink
			e.publish()
		}
		if c.drift {
			e.Vifs.Look() // once the rules are back, into which they must be admitted
		}
	}
}

// failClosed refuses all virtual addresses before anything is known, unless rules of an earlier run are at work:
// those are the last good ones.
func (e *Engine) failClosed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, kernelDeadline)
	defer cancel()
	loaded, err := e.Firewall.Loaded(ctx)
	if err != nil || loaded {
		return err
	}
	e.Log.Info("no rules of ours in the kernel: refusing AppVM DNS until the uplink is known")
	_, err = e.Firewall.Apply(ctx, plan.Decide(plan.Inputs{Virtual: e.now.Virtual}).Targets)
	return err
}

// wait blocks until there is something to do; false = ctx ended.
func (e *Engine) wait(ctx context.Context) (cause, bool) {
	var c cause
	for {
		select {
		case <-ctx.Done():
			return c, false
		case call := <-e.calls:
			call()
			continue
		case <-e.Vifs.Changed(): // nothing of the targets depends on them
			e.vifs, e.vifProblems = e.Vifs.Take()
			e.publish()
			continue
		case <-e.retry.C:
			c.arrived = time.Now()
		case <-e.Uplinks.Changed():
			e.takeView(&c)
		case <-e.Own.Changed():
			e.takeOwn(&c)
		case n := <-e.settings:
			e.takeSettings(&c, n)
		case who := <-e.drift:
			e.takeDrift(&c, who)
		case a := <-e.asks:
			e.takeAsk(&c, a)
		}
		return c, true
	}
}

// drain takes what else is there by now, so that a burst costs one transaction.
func (e *Engine) drain(c *cause) {
	for {
		select {
		case <-e.Uplinks.Changed():
			e.takeView(c)
		case <-e.Own.Changed():
			e.takeOwn(c)
		case n := <-e.settings:
			e.takeSettings(c, n)
		case who := <-e.drift:
			e.takeDrift(c, who)
		case a := <-e.asks:
			e.takeAsk(c, a)
		default:
			return
		}
	}
}

func (c *cause) since(t time.Time) {
	if c.arrived.IsZero() || t.Before(c.arrived) {
		c.arrived = t
	}
}

func (e *Engine) takeView(c *cause) {
	e.view, e.seen = e.Uplinks.Take(), true
	c.signals += e.view.Signals
	if e.view.Arrived.IsZero() {
		c.since(time.Now())
	} else {
		c.since(e.view.Arrived)
	}
}

func (e *Engine) takeOwn(c *cause) {
	e.own, e.seenOwn = e.Own.Take(), true
	c.since(time.Now())
}

func (e *Engine) takeSettings(c *cause, n news) {
	e.now = n.Settings
	c.since(n.arrived)
}

func (e *Engine) takeDrift(c *cause, who string) {
	c.drift, c.who = true, who
	c.since(time.Now())
}

// inputs are what a decision depends on, as they are now.
func (e *Engine) inputs() plan.Inputs {
	in := plan.Inputs{
		View:        e.view,
		Virtual:     e.now.Virtual,
		Configured:  e.now.Servers,
		Source:      e.now.Source,
		Own:         e.own,
		PassThrough: e.now.PassThrough,
		Above:       e.now.Above,
	}
	if len(e.now.Overrides) > 0 {
		in.Override = e.now.Overrides[0]
	}
	return in
}

func (e *Engine) decide() {
	before := e.decision
	e.decision = plan.Decide(e.inputs())
	for _, d := range e.decision.Dropped {
		if !slices.Contains(before.Dropped, d) {
			e.Log.Warn("resolver not used", "resolver", d.Addr, "reason", d.Reason, "source", e.decision.Source)
		}
	}
}

// apply brings the kernel to the decision, and mends it where others changed it.
func (e *Engine) apply(ctx context.Context, c cause) error {
	ctx, cancel := context.WithTimeout(ctx, kernelDeadline)
	defer cancel()
	e.statistics.Coalesced += uint64(max(0, c.signals-1))
	wanted := e.decision.Targets
	same := e.applied != nil && slices.Equal(wanted, e.applied)
	if same && e.failure == "" {
		switch {
		case e.now.OnlyWarn && !c.restore && (c.drift || len(e.drifted) > 0):
			e.look(ctx, c)
			return nil
		case !c.drift:
			e.Log.Debug("nothing to change", "source", e.decision.Source)
			return nil
		}
	}
	if !same {
		e.purge.hold()
		defer e.purge.resume()
	}
	changes, err := e.Firewall.Apply(ctx, wanted)
	acknowledged := time.Now()
	if len(changes) > 0 {
		e.writes.Add(1)
	}
	if err != nil {
		e.failed(err)
		return err
	}
	e.recovered()
	e.tookOver(wanted, changes, same, c, acknowledged)
	return nil
}

// tookOver notes that the kernel is as wanted, and what had to be changed for it; same = the targets were wanted before.
func (e *Engine) tookOver(wanted []netvm.Target, changes []string, same bool, c cause, acknowledged time.Time) {
	first := e.applied == nil
	e.applied, e.drifted = wanted, nil
	if first {
		close(e.ready)
	}
	switch {
	case len(changes) == 0 && first:
		e.Log.Info("took over: the kernel is already as wanted", "source", e.decision.Source)
		return
	case len(changes) == 0:
		e.Log.Debug("the kernel is already as wanted", "source", e.decision.Source)
		return
	case same:
		e.statistics.Restored++
		e.Log.Warn("restored our rules", "changed_by", c.who, "restored", changes)
		return
	}
	e.changedAt, e.applyTime = acknowledged, acknowledged.Sub(c.arrived)
	e.statistics.Applies++
	e.latencies.add(e.applyTime)
	e.statistics.Latency = e.latencies.summary()
	e.purge.follow(wanted)
	e.logTargets(c, changes)
	e.Dependants.TargetsChanged()
}

// accelerate lets established flows over the uplinks take the short way. Rules that were loaded anew know no devices.
func (e *Engine) accelerate(ctx context.Context, again bool) {
	var devices []string
	_, uplinks := e.view.WayOut()
	for _, u := range uplinks {
		if u.Interface != "" {
			devices = append(devices, u.Interface)
		}
	}
	if !again && slices.Equal(devices, e.fast) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, kernelDeadline)
	defer cancel()
	if err := e.Firewall.Accelerate(ctx, devices); err != nil {
		e.Log.Warn("established flows over the uplinks take the long way", "interfaces", devices, "err", err)
	}
	e.fast = devices
}

// look says what others changed, without mending it: firewall.on_drift = "warn".
func (e *Engine) look(ctx context.Context, c cause) {
	differences, err := e.Firewall.Check(ctx, e.applied)
	if err != nil {
		e.Log.Error("cannot compare the kernel with what is wanted", "err", err)
		return
	}
	if len(differences) > 0 && !slices.Equal(differences, e.drifted) {
		e.Log.Warn("somebody changed our rules; on_drift = \"warn\" leaves them", "changed_by", c.who, "differences", differences)
	}
	e.drifted = differences
}

func (e *Engine) failed(err error) {
	if err.Error() != e.failure {
		e.Log.Error("cannot apply the targets; the rules before stay in force; trying again", "err", err)
	}
	e.failure = err.Error()
	e.pause = min(max(2*e.pause, firstRetry), lastRetry)
	e.retry.Reset(e.pause)
}

func (e *Engine) recovered() {
	if e.failure != "" {
		e.Log.Info("the kernel takes our rules again")
	}
	e.failure, e.pause = "", 0
	e.retry.Stop()
}

func (e *Engine) logTargets(c cause, changes []string) {
	e.Log.Info("AppVM DNS follows", "source", e.decision.Source, "reason", e.decision.Reason,
		"took", e.applyTime.Round(time.Microsecond), "signals", c.signals)
	for _, t := range e.applied {
		if t.Served() {
			e.Log.Info("target", "virtual", t.Virtual, "resolver", t.Resolver.Addr, "interface", t.Resolver.Interface)
		} else {
			e.Log.Info("target", "virtual", t.Virtual, "resolver", "none: queries are refused")
		}
	}
	e.Log.Debug("written to the kernel", "changes", changes)
}
