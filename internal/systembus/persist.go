package systembus

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"netvmd/internal/filewatch"
)

// firstPause and lastPause bound the pause before a bus that is there, and does not work, is tried again; it doubles in
// between. One that does not exist is waited for without any.
const firstPause, lastPause = 20 * time.Millisecond, time.Minute

// Persist calls session, which holds one connection to the bus, again and again until ctx ends. session tells whether
// there was a bus. It is called at once when the bus's socket appears; while there is none, nothing wakes up.
func Persist(ctx context.Context, log *slog.Logger, session func(context.Context) (connected bool, err error)) {
	var socket *socketWatch // while the bus is away
	defer func() { socket.close(log) }()
	for pause := firstPause; ctx.Err() == nil; {
		watched := socket.armed(log)
		began := time.Now()
		connected, err := session(ctx)
		if ctx.Err() != nil {
			return
		}
		log.Debug("not on the system bus", "err", err)
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		if connected {
			socket.close(log)
			socket, watched = nil, false
		}
		if socket == nil {
			socket = watchSocket(ctx, log)
		}
		// A socket that has not appeared since it is watched is waited for, and for nothing else.
		forGood := watched && errors.Is(err, fs.ErrNotExist)
		if socket.wait(ctx, pause, forGood) {
			pause = firstPause // it exists before it listens
		} else {
			pause = min(2*pause, lastPause)
		}
	}
}

// socketWatch tells when the bus's socket appears, or changes.
type socketWatch struct {
	watch    *filewatch.Watch
	appeared chan struct{} // capacity 1
}

// watchSocket returns nil if the socket cannot be watched, after a word in the log if it should be.
func watchSocket(ctx context.Context, log *slog.Logger) *socketWatch {
	found := sockets(address(ctx))
	if len(found) != 1 || strings.HasPrefix(found[0], "@") {
		return nil
	}
	w, err := filewatch.New(found[0])
	if err != nil {
		log.Warn("the system bus's socket is not watched", "err", err)
		return nil
	}
	s := &socketWatch{watch: w, appeared: make(chan struct{}, 1)}
	go func() {
		for w.Wait() == nil { // an error: closed
			select {
			case s.appeared <- struct{}{}:
			default:
			}
		}
	}()
	return s
}

// armed watches the way to the socket as it is now, and tells whether it does.
func (s *socketWatch) armed(log *slog.Logger) bool {
	if s == nil {
		return false
	}
	if err := s.watch.Arm(); err != nil {
		log.Debug("the system bus's socket is not watched", "err", err)
		return false
	}
	return true
}

// wait waits for the socket or, unless it is for good, for a time, and tells whether it was the socket.
func (s *socketWatch) wait(ctx context.Context, d time.Duration, forGood bool) bool {
	var appeared <-chan struct{}
	if s != nil {
		appeared = s.appeared
	}
	var over <-chan time.Time
	if !forGood {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
	case <-over:
	case <-appeared:
		return true
	}
	return false
}

func (s *socketWatch) close(log *slog.Logger) {
	if s == nil {
		return
	}
	if err := s.watch.Close(); err != nil {
		log.Debug("stop watching", "err", err)
	}
}
