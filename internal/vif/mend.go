package vif

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"netvmd/internal/netvm"
)

// lockedRetry is the pause before a vif is looked at again that the hotplug program had in its hands. Mostly an event
// comes before that; a program that is killed gives none.
const lockedRetry = time.Second

// everything is the care for a look that failed as a whole; no vif has this name.
const everything = ""

// deviceGone is what is wrong with a vif whose device is gone.
const deviceGone = "the device is gone"

// care is what is being done about a vif that is not as it should be.
type care struct {
	spec  Spec   // what it must be
	what  string // is wrong
	tries int
	next  time.Time // when it is tried again, not before
	pause time.Duration
	err   error // why the last try failed
}

// later grows the pause.
func (k *care) later() {
	k.pause = min(max(2*k.pause, firstRetry), lastRetry)
	k.next = time.Now().Add(k.pause)
}

// care returns what is being done about a vif. When something else is wrong than before, it begins anew.
func (c *Census) care(name string, spec Spec, what string) *care {
	k := c.cares[name]
	if k == nil || k.what != what || !k.spec.same(spec) {
		k = &care{spec: spec, what: what}
		c.cares[name] = k
	}
	return k
}

// nextCare is when something is to be tried again; the zero Time = nothing is.
func (c *Census) nextCare() time.Time {
	var next time.Time
	for _, k := range c.cares {
		if next.IsZero() || k.next.Before(next) {
			next = k.next
		}
	}
	return next
}

// attend says how a vif is whose device is there, and mends it where it is not as its record says.
func (c *Census) attend(ctx context.Context, l *land, spec Spec, onlyWarn bool) (state netvm.VifState, problem string) {
	d := l.drift(spec)
	if len(d.all()) == 0 {
		delete(c.cares, spec.Name)
		return netvm.VifUp, ""
	}
	what := strings.Join(d.all(), "; ")
	if onlyWarn {
		return netvm.VifDegraded, fmt.Sprintf("%s differs from what it was brought up with (%s). Detach the AppVM's card and "+
			"attach it again, or set firewall.on_drift = \"restore\" in netvmd.toml.", spec.Name, what)
	}
	k := c.care(spec.Name, spec, what)
	if time.Now().Before(k.next) {
		return netvm.VifDegraded, k.problem()
	}
	err := c.setup.mend(ctx, spec, l.entitled(spec), len(d.kernel) > 0)
	if errors.Is(err, errLocked) {
		k.next = time.Now().Add(lockedRetry)
		return netvm.VifDegraded, ""
	}
	k.later()
	k.tries++
	k.err = err
	if err != nil {
		return netvm.VifDegraded, k.problem()
	}
	c.log.Warn("mended a vif that somebody changed", "vif", spec.Name, "was", what)
	return netvm.VifUp, ""
}

// problem says what is wrong with a vif that mending did not help; "" if that is not known yet.
func (k *care) problem() string {
	switch {
	case k.err != nil:
		return fmt.Sprintf("%s cannot be mended (%s): %s. It is tried again; if this stays, detach the AppVM's card and attach "+
			"it again.", k.spec.Name, k.what, oneLine(k.err))
	case k.tries > 1:
		return fmt.Sprintf("%s is changed again as soon as it is mended (%s): find the program that does it. netvmd goes on "+
			"mending, with pauses.", k.spec.Name, k.what)
	}
	return ""
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// forget takes away what is left of vifs whose devices are gone: their domains died and nobody ran the hotplug program,
// or it was killed. It returns the problems.
func (c *Census) forget(ctx context.Context, l *land, grace time.Duration) []string {
	var problems []string
	for _, name := range l.gone() {
		k := c.care(name, Spec{}, deviceGone)
		if k.next.IsZero() && grace > 0 {
			k.next = time.Now().Add(grace)
		}
		if time.Now().Before(k.next) {
			continue
		}
		err := c.setup.forget(ctx, name)
		switch {
		case errors.Is(err, errLocked):
			k.next = time.Now().Add(lockedRetry)
		case err != nil:
			k.later()
			problems = append(problems, fmt.Sprintf("%s is gone and cannot be cleaned up: %s. It is tried again.", name, oneLine(err)))
		default:
			k.later() // until the next look does not see it any more
			c.log.Info("cleaned up after a vif whose device is gone", "vif", name)
		}
	}
	return problems
}

// dropCares ends the care for what is not there any more.
func (c *Census) dropCares(l *land) {
	gone := l.gone()
	for name := range c.cares {
		known := slices.ContainsFunc(l.records, func(s Spec) bool { return s.Name == name })
		if !known && !slices.Contains(gone, name) {
			delete(c.cares, name)
		}
	}
}

// mend brings a vif back to what its record says, through what Online does, and is errLocked when the hotplug program is
// at work on it. It forgets no flows: they are still those of the same AppVM.
func (s *Setup) mend(ctx context.Context, spec Spec, entitled []netip.Addr, device bool) error {
	unlock, err := s.locks.tryVif(spec.Name)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := s.records.Read(spec.Name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !now.same(spec) {
		return errLocked // it was, a moment ago
	}
	if err != nil {
		return err
	}
	link, err := s.kernel.link(spec.Name)
	if err != nil {
		return err
	}
	if link == nil {
		return errLocked // the card is being taken away
	}
	if err := s.readmit(ctx, spec, entitled); err != nil || !device {
		return err
	}
	return s.bring(ctx, spec, link, claim{})
}

// readmit admits a vif to those of its addresses that no newer domain has taken by now.
func (s *Setup) readmit(ctx context.Context, spec Spec, entitled []netip.Addr) error {
	unlock, err := s.locks.addresses(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.ensure(ctx); err != nil {
		return err
	}
	admitted, err := s.Gate.Admitted(ctx)
	if err != nil {
		return err
	}
	taken := func(addr netip.Addr) bool {
		return slices.ContainsFunc(admitted, func(a netvm.Admission) bool {
			return a.Addr == addr && byAge(a.Vif, spec.Name) > 0 && s.exists(a.Vif)
		})
	}
	return s.Gate.Admit(ctx, spec.Name, slices.DeleteFunc(entitled, taken))
}

// exists tells whether there is a device of that name; when that cannot be known, there is.
func (s *Setup) exists(name string) bool {
	link, err := s.kernel.link(name)
	return err != nil || link != nil
}

// forget does what Offline does for a vif whose device is gone, but runs no hooks: those are for a vif that was taken
// down in order. It is errLocked when the hotplug program is at work on it.
func (s *Setup) forget(ctx context.Context, name string) error {
	unlock, err := s.locks.tryVif(name)
	if err != nil {
		return err
	}
	defer unlock()
	if s.exists(name) {
		return nil // a new one, by now
	}
	_, err = s.takeDown(ctx, name)
	return err
}
