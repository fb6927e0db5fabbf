package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

const (
	// firstPause and lastPause bound the wait before the store is opened again; it doubles in between.
	firstPause, lastPause = 100 * time.Millisecond, 30 * time.Second
	// steady is how long a connection must have lasted for the pauses to begin anew.
	steady = 10 * time.Second
	// looks is how often Auto looks again for a store where there was none. With the pauses above that is half a
	// minute: the stores start before the netvm's network does, or never.
	looks = 8
)

// Follower follows the settings. A change only says that something is different: the settings are then read again in
// whole, and what is wrong with them or with the store leaves the last good ones in force.
//
// While it is connected it waits for the store's word; only a store that has gone away, or one that was asked for by its
// name and is not there, is looked for again and again, ever more slowly. Auto settles on the kind that it finds first;
// where there is none it gives up after half a minute, as a machine without a toolstack needs no looking.
type Follower struct {
	options Options
	log     *slog.Logger
	changed chan struct{}
	asks    chan chan<- error // see Refresh; each takes one error
	pause   time.Duration     // the first one

	mu       sync.Mutex
	settings Settings
	problems []string
	said     bool // a first word was given
}

// NewFollower returns one that follows nothing until Run; a nil log logs to slog.Default.
func NewFollower(o Options, log *slog.Logger) *Follower {
	if log == nil {
		log = slog.Default()
	}
	return &Follower{options: o, log: log, changed: make(chan struct{}, 1), asks: make(chan chan<- error), pause: firstPause}
}

// Changed has a token when Take returns something else than before. The first comes soon in every case: after the
// first reading, or when there is nothing to read.
func (f *Follower) Changed() <-chan struct{} { return f.changed }

// Take returns the last good settings and what is wrong with the store now, a sentence each; the caller must not change
// the slices.
func (f *Follower) Take() (Settings, []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.settings, f.problems
}

// Refresh has the store read again, and returns when Take has what it says; a token follows only if that is different. A
// store that has gone away is an error until it is back.
func (f *Follower) Refresh(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case f.asks <- done:
	case <-ctx.Done():
		return fmt.Errorf("the store does not answer: %w", ctx.Err())
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the store does not answer: %w", ctx.Err())
	}
}

// Run follows until ctx ends, and returns nil then. Trouble with the store is a problem that Take returns, and is
// overcome.
func (f *Follower) Run(ctx context.Context) error {
	options, left, pause := f.options, looks, f.pause
	for {
		var away error // why there is no connection now; nil = there is nothing to connect to
		began := time.Now()
		s, err := open(ctx, options)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			away = f.lost(err)
		case s.Kind() == None && options.Kind == Auto && left > 0:
			left--
			away = f.read(ctx, s)
		default:
			options.Kind = s.Kind() // Auto has settled
			f.log.Info("the netvm's settings come from here", "store", options.Kind)
			away = f.lost(f.follow(ctx, s))
		}
		if time.Since(began) > steady {
			pause = f.pause
		}
		if !f.wait(ctx, pause, away) {
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

// wait returns false when ctx ends first. Who asks meanwhile is told why there is no connection.
func (f *Follower) wait(ctx context.Context, pause time.Duration, away error) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case done := <-f.asks:
			done <- away
		}
	}
}

// follow reads the settings, and again after each change, until the connection or ctx ends. With None that is once.
func (f *Follower) follow(ctx context.Context, s *Store) error {
	defer func() {
		if err := s.Close(); err != nil {
			f.log.Debug("closing the store", "err", err)
		}
	}()
	// Before the first reading, so that no change is missed.
	dirty, err := s.source.Watch(ctx, s.keys.watched()...)
	if err != nil {
		return err
	}
	for asked := chan<- error(nil); ; {
		err := f.read(ctx, s)
		if asked != nil {
			asked <- err
			asked = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.source.Done():
			return s.source.Err()
		case <-dirty:
		case asked = <-f.asks:
		}
	}
}

// read takes the settings as they are now; what is wrong with them is a problem, and no error. An end of the connection
// is left to follow.
func (f *Follower) read(ctx context.Context, s *Store) error {
	settings, err := s.Settings(ctx)
	var faults ValueErrors
	switch {
	case err == nil:
		f.put(settings)
	case errors.As(err, &faults):
		f.keep(faults)
	default:
		return fmt.Errorf("read the store again: %w", err)
	}
	return nil
}

// lost says that the store is not there, and gives that as an error; nil is the end of ctx.
func (f *Follower) lost(err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("the store cannot be followed: %w", err)
	f.keep(ValueErrors{err})
	return err
}

// put makes settings the good ones.
func (f *Follower) put(settings Settings) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.putLocked(settings, nil)
}

// keep leaves the good ones in force and says what is wrong.
func (f *Follower) keep(faults ValueErrors) {
	f.mu.Lock()
	defer f.mu.Unlock()
	problems := make([]string, len(faults))
	for i, fault := range faults {
		problems[i] = fmt.Sprintf("The netvm's settings are not taken: %v. What was good before stays in force.", fault)
	}
	f.putLocked(f.settings, problems)
}

// putLocked gives a token when something is different. The problems are logged by the engine, once.
func (f *Follower) putLocked(settings Settings, problems []string) {
	same := settings.equal(f.settings)
	if f.said && same && slices.Equal(problems, f.problems) {
		return
	}
	if !same {
		f.log.Info("the netvm's settings", settings.attributes()...)
	}
	f.settings, f.problems, f.said = settings, problems, true
	select {
	case f.changed <- struct{}{}:
	default: // the last one was not received yet
	}
}
