package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// maxSamples bounds what a Loop remembers: some 10 minutes of 3000 queries a second, in 150 MB.
const maxSamples = 2_000_000

// Sample is one query of a Loop and what became of it.
type Sample struct {
	Answer
	Err error // as Ask returns it
}

// Loop asks one DNS server again and again until it is stopped.
type Loop struct {
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	samples []Sample
	changed chan struct{} // closed and renewed with each sample
}

// AskLoop starts a Loop. With every = 0 it asks one query at a time, as fast as answers come; else it asks at
// that interval, whether earlier queries were answered or not, so that one lost answer hides nothing.
func (h *Host) AskLoop(ctx context.Context, server netip.Addr, q Question, every time.Duration) *Loop {
	ctx, cancel := context.WithCancel(ctx)
	l := &Loop{cancel: cancel, ended: make(chan struct{}), changed: make(chan struct{})}
	// A query that was sent is waited for, also when the loop is stopped meanwhile: it counts.
	one := func() bool {
		a, err := h.Ask(context.WithoutCancel(ctx), server, q)
		return l.add(Sample{a, err})
	}
	go func() {
		defer close(l.ended)
		if every == 0 {
			for ctx.Err() == nil && one() {
			}
			return
		}
		askAtInterval(ctx, every, one)
	}()
	return l
}

// askAtInterval starts one at each tick and, when ctx has ended, waits for those under way.
func askAtInterval(ctx context.Context, every time.Duration, one func() bool) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var underWay sync.WaitGroup
	defer underWay.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			underWay.Add(1)
			go func() {
				defer underWay.Done()
				one()
			}()
		}
	}
}

// add remembers a sample; it is false when there is no room for more.
func (l *Loop) add(s Sample) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.samples) == maxSamples {
		return false
	}
	l.samples = append(l.samples, s)
	close(l.changed)
	l.changed = make(chan struct{})
	return true
}

// Stop waits for what is under way and returns the samples, in the order in which they were answered. Stopping
// twice is harmless.
func (l *Loop) Stop() []Sample {
	l.cancel()
	<-l.ended
	return l.samples
}

// Full tells whether the loop has ended by itself, for want of room: then it did not see what came later.
func (l *Loop) Full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.samples) == maxSamples
}

// Await returns the first sample, of a query that was sent at or after since, that satisfies holds.
func (l *Loop) Await(ctx context.Context, since time.Time, holds func(Sample) bool) (Sample, error) {
	for next := 0; ; {
		l.mu.Lock()
		fresh, changed := l.samples[next:], l.changed
		l.mu.Unlock()
		for _, s := range fresh {
			if !s.Asked.Before(since) && holds(s) {
				return s, nil
			}
		}
		next += len(fresh)
		select {
		case <-changed:
		case <-l.ended:
			return Sample{}, errors.New("the loop ended before the awaited answer")
		case <-ctx.Done():
			return Sample{}, fmt.Errorf("the awaited answer never came: %w", ctx.Err())
		}
	}
}

// Tally counts what became of a loop's queries.
type Tally struct {
	Asked   int
	By      map[netip.Addr]int // answered by whom
	Lost    int                // no answer in time
	Refused int
	Failed  int   // anything else
	Failure error // the first of those
	Slowest time.Duration
}

// Count makes the tally of samples.
func Count(samples []Sample) Tally {
	t := Tally{Asked: len(samples), By: map[netip.Addr]int{}}
	for _, s := range samples {
		switch {
		case s.Err == nil:
			t.By[s.Who]++
			t.Slowest = max(t.Slowest, s.Took)
		case errors.Is(s.Err, ErrTimeout):
			t.Lost++
		case errors.Is(s.Err, ErrRefused):
			t.Refused++
		default:
			t.Failed++
			if t.Failure == nil {
				t.Failure = s.Err
			}
		}
	}
	return t
}

// Outage is for how long a loop's queries got no answer: from the first that failed to the first that was asked after the
// last that did. It is 0 when all were answered.
func Outage(samples []Sample) time.Duration {
	var first, last time.Time
	for _, s := range samples {
		if s.Err == nil {
			continue
		}
		if first.IsZero() || s.Asked.Before(first) {
			first = s.Asked
		}
		if s.Asked.After(last) {
			last = s.Asked
		}
	}
	end := last
	for _, s := range samples {
		if s.Asked.After(last) && (end.Equal(last) || s.Asked.Before(end)) {
			end = s.Asked
		}
	}
	return end.Sub(first)
}

// Epoch is a stretch of time in which one resolver was the target.
type Epoch struct {
	From     time.Time // the earliest moment at which the kernel may have translated to it
	Until    time.Time // the latest moment; the zero Time = still
	Resolver netip.Addr
}

// Strangers returns the samples that were answered by a resolver that was not the target at any moment
// between question and answer.
func Strangers(samples []Sample, epochs []Epoch) []Sample {
	var strangers []Sample
	for _, s := range samples {
		if s.Err == nil && !expected(s, epochs) {
			strangers = append(strangers, s)
		}
	}
	return strangers
}

func expected(s Sample, epochs []Epoch) bool {
	for _, e := range epochs {
		if e.Resolver == s.Who && !s.Asked.Add(s.Took).Before(e.From) && (e.Until.IsZero() || !s.Asked.After(e.Until)) {
			return true
		}
	}
	return false
}
