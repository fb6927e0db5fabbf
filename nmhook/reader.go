package nmhook

import (
	"context"
	"log/slog"
	"time"

	"netvmd/internal/netvm"
)

// retryMin and retryMax bound the pause after a read that failed; the pause doubles. Only a service that is
// there and does not answer is asked again like this: everything else announces itself.
const (
	retryMin = 100 * time.Millisecond
	retryMax = 60 * time.Second
)

// quietFailures is how many refused reads in a row are not worth a fault: a service that is leaving the bus
// refuses before its leaving is announced, and NetworkManager takes its name before it offers its objects.
const quietFailures = 2

// reading is what one read of a source gave.
type reading struct {
	change func(*netvm.View) // puts the value into a view
	// malformed has a sentence for each part that made no sense. Then the last good value stays; before there
	// was one, what did make sense is better than nothing, and is used.
	malformed []string
	running   func(*netvm.View) // what is put into a view even then
	notes     []string          // what is well-formed and cannot be used
}

// reader reads one source on the bus whenever it is dirty.
type reader struct {
	board   *board
	log     *slog.Logger
	source  source
	timeout time.Duration
	read    func(context.Context) (reading, error)
	known   *known
	failed  int // reads in a row
}

// run reads until ctx ends.
func (r *reader) run(ctx context.Context) {
	pause := retryMin
	retry := time.NewTimer(pause)
	retry.Stop()
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.board.kick[r.source]:
		case <-retry.C:
		}
		retry.Stop()
		if r.once(ctx) {
			pause = retryMin
			continue
		}
		retry.Reset(pause)
		pause = min(2*pause, retryMax)
	}
}

// once reads the source and publishes what came out. It returns false if it could not be read.
func (r *reader) once(ctx context.Context) bool {
	asked, carried := r.board.collect(r.source)
	limited, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	got, err := r.read(limited)
	if ctx.Err() != nil { // the connection is over, not the source: the next one reads it
		r.board.putBack(r.source, asked)
		return false
	}
	if err != nil {
		r.failed++
		r.log.Debug("read failed", "source", r.source, "error", err, "failed", r.failed)
		if r.failed <= quietFailures && limited.Err() == nil {
			r.board.putBack(r.source, asked)
			return false
		}
		r.board.publishFailed(r.source, asked, err)
		return false
	}
	r.failed = 0
	change := got.change
	if r.known.keep(len(got.malformed) > 0) {
		change = got.running
	}
	if !r.board.publishRead(r.source, asked, carried, append(got.malformed, got.notes...), change) {
		r.log.Debug("a signal was faster than the answer", "source", r.source)
	}
	return true
}
