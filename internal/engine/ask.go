package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"netvmd/internal/plan"
)

// readingDeadline bounds how long Refresh waits for the sources: callers on the bus wait a few seconds for it all, and
// what did answer is to be applied within them.
const readingDeadline = 3 * time.Second

// ask is somebody who waits for the next apply.
type ask struct {
	full bool         // which is to compare the kernel in whole
	done chan<- error // capacity 1
}

// do has call called by the engine's goroutine.
func (e *Engine) do(ctx context.Context, call func()) error {
	done := make(chan struct{})
	select {
	case e.calls <- func() { call(); close(done) }:
		<-done
		return nil
	case <-ctx.Done():
		return fmt.Errorf("engine: no answer: %w", ctx.Err())
	}
}

// Alive returns nil when the engine's goroutine answers, else ctx's error.
func (e *Engine) Alive(ctx context.Context) error { return e.do(ctx, func() {}) }

// CheckServers says why addresses could not all be resolvers now. The error is a netvm.InvalidError, or ctx's.
func (e *Engine) CheckServers(ctx context.Context, servers []netip.Addr) error {
	var refused error
	if err := e.do(ctx, func() { refused = plan.Check(servers, e.inputs()) }); err != nil {
		return err
	}
	return refused
}

// Settle returns when the kernel has what was given to Configure before, or says why it has not. What it has not is tried
// again, whoever waits.
func (e *Engine) Settle(ctx context.Context) error { return e.applies(ctx, false) }

// Refresh has every source read again, and brings the kernel to what they say, also where somebody else changed our
// rules, and with OnlyWarn; changed tells whether rules or targets were written. The vifs are looked at, and not waited
// for. A source that does not answer is an error that names it, and what is known is applied all the same.
func (e *Engine) Refresh(ctx context.Context) (changed bool, err error) {
	before := e.writes.Load() // a source that changed is applied while others are read
	silent := e.reread(ctx)
	err = e.applies(ctx, true)
	if err = errors.Join(silent, err); err != nil {
		err = oneLineError{err}
	}
	return e.writes.Load() > before, err
}

// oneLineError shows joined errors in one line, as everything that is said to people here.
type oneLineError struct{ error }

func (o oneLineError) Error() string { return strings.ReplaceAll(o.error.Error(), "\n", "; ") }

func (o oneLineError) Unwrap() error { return o.error }

// reread asks all sources at once.
func (e *Engine) reread(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readingDeadline)
	defer cancel()
	faults := make([]error, len(e.Sources))
	var reading sync.WaitGroup
	for i, s := range e.Sources {
		reading.Add(1)
		go func() {
			defer reading.Done()
			faults[i] = s.Refresh(ctx)
		}()
	}
	reading.Wait()
	return errors.Join(faults...)
}

// applies waits for the apply that takes in everything of before the call. Before the first view is in, that is the first.
func (e *Engine) applies(ctx context.Context, full bool) error {
	done := make(chan error, 1)
	select {
	case e.asks <- ask{full, done}:
	case <-ctx.Done():
		return fmt.Errorf("engine: no answer: %w", ctx.Err())
	}
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("the kernel does not take our rules yet: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("engine: the kernel has no answer yet: %w", ctx.Err())
	}
}

func (e *Engine) takeAsk(c *cause, a ask) {
	e.asked = append(e.asked, a)
	c.since(time.Now())
	if a.full {
		e.takeDrift(c, "found by Refresh")
		c.restore = true
	}
}

// answer tells all who wait how the apply went.
func (e *Engine) answer(err error) {
	for _, a := range e.asked {
		a.done <- err
	}
	e.asked = nil
}
