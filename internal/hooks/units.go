// Package hooks tells the rest of the system that AppVM DNS leads elsewhere now: systemd units that depend on it
// are restarted or reloaded, after a real change only, and never so often that systemd would give a unit up.
package hooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
)

const (
	// jobDeadline bounds one restart or reload, and every call to systemd.
	jobDeadline = 30 * time.Second
	// leastPause is kept between two jobs of one unit although systemd would bear more.
	leastPause = time.Second
	// defaultPause is kept where systemd does not say what it bears: its own default is 5 starts in 10 s
	// (systemd-system.conf, DefaultStartLimitIntervalSec and DefaultStartLimitBurst); one is left for the admin.
	defaultPause = 2500 * time.Millisecond
)

type verb string

const (
	tryRestart verb = "try-restart"
	tryReload  verb = "try-reload"
)

type job struct {
	verb verb
	unit string
}

// Units tells systemd units. Each unit has a goroutine of its own, so that a slow one delays no other.
type Units struct {
	ctx context.Context //nolint:containedctx // the life of the goroutines, which start when first needed
	log *slog.Logger

	mu      sync.Mutex
	wanted  []job
	pending map[job]chan struct{} // capacity 1: changes that come while a job runs are one more job
}

// NewUnits makes a Units without any; its goroutines end with ctx.
func NewUnits(ctx context.Context, log *slog.Logger) *Units {
	return &Units{ctx: ctx, log: log, pending: map[job]chan struct{}{}}
}

// Configure replaces the units that are told.
func (u *Units) Configure(restart, reload []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.wanted = nil
	for _, name := range restart {
		u.wanted = append(u.wanted, job{tryRestart, name})
	}
	for _, name := range reload {
		u.wanted = append(u.wanted, job{tryReload, name})
	}
}

// TargetsChanged tells all units, as soon as systemd bears it. It does not block.
func (u *Units) TargetsChanged() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, j := range u.wanted {
		ch, running := u.pending[j]
		if !running {
			ch = make(chan struct{}, 1)
			u.pending[j] = ch
			go u.follow(j, ch)
		}
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (u *Units) configured(j job) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Contains(u.wanted, j)
}

// follow runs one job after every change, with a pause between two that the unit's start limit bears.
func (u *Units) follow(j job, changed <-chan struct{}) {
	for {
		select {
		case <-u.ctx.Done():
			return
		case <-changed:
		}
		if !u.configured(j) {
			continue
		}
		pause, err := u.run(j)
		switch {
		case errors.Is(err, errNotActive):
			u.log.Debug("unit not told: it is not running", "unit", j.unit, "verb", j.verb)
		case err != nil && u.ctx.Err() == nil:
			u.log.Warn("unit not told that AppVM DNS changed", "unit", j.unit, "verb", j.verb, "err", err)
		case err == nil:
			u.log.Info("unit told that AppVM DNS changed", "unit", j.unit, "verb", j.verb)
		}
		select {
		case <-u.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

var errNotActive = errors.New("the unit is not active")

// run does one job and returns the pause that is due after it.
func (u *Units) run(j job) (pause time.Duration, err error) {
	ctx, cancel := context.WithTimeout(u.ctx, jobDeadline)
	defer cancel()
	conn, err := systemd.NewSystemConnectionContext(ctx)
	if err != nil {
		return defaultPause, fmt.Errorf("connect to systemd: %w", err)
	}
	defer conn.Close()
	properties, err := conn.GetUnitPropertiesContext(ctx, j.unit)
	if err != nil {
		return defaultPause, fmt.Errorf("ask systemd about %s: %w", j.unit, err)
	}
	pause = pauseOf(properties)
	if properties["ActiveState"] != "active" {
		return pause, errNotActive
	}
	act := conn.TryRestartUnitContext
	if j.verb == tryReload {
		act = conn.ReloadUnitContext
	}
	result := make(chan string, 1)
	if _, err := act(ctx, j.unit, "replace", result); err != nil {
		return pause, fmt.Errorf("%s %s: %w", j.verb, j.unit, err)
	}
	select {
	case r := <-result:
		if r != "done" && r != "skipped" {
			return pause, fmt.Errorf("%s %s: systemd's job ended as %q", j.verb, j.unit, r)
		}
		return pause, nil
	case <-ctx.Done():
		return pause, fmt.Errorf("%s %s: systemd's job did not end within %s", j.verb, j.unit, jobDeadline)
	}
}

// pauseOf is the pause that the unit's own start limit bears for ever: its interval over one start less than its
// burst, so that one is left for the admin.
func pauseOf(properties map[string]any) time.Duration {
	interval, ok1 := properties["StartLimitIntervalUSec"].(uint64)
	burst, ok2 := properties["StartLimitBurst"].(uint32)
	switch {
	case !ok1 || !ok2:
		return defaultPause
	case interval == 0 || burst == 0: // no limit
		return leastPause
	}
	d := time.Duration(min(interval, uint64(time.Hour/time.Microsecond))) * time.Microsecond
	return max(d/time.Duration(max(1, burst-1)), leastPause)
}
