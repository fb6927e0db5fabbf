package systembus

import (
	"context"
	"log/slog"
	"time"
)

// firstPause and lastPause bound the pause before the bus is tried again; it doubles in between.
const firstPause, lastPause = 20 * time.Millisecond, time.Minute

// Persist calls session, which holds one connection to the bus, again and again until ctx ends. session tells whether
// there was a bus.
func Persist(ctx context.Context, log *slog.Logger, session func(context.Context) (connected bool, err error)) {
	pause := firstPause
	for ctx.Err() == nil {
		connected, err := session(ctx)
		if connected {
			pause = firstPause
		}
		log.Debug("not on the system bus", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}
