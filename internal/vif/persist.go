package vif

import (
	"context"
	"log/slog"
	"time"
)

// resubscribePause is the wait before the next attempt after a subscription that did not last as long.
const resubscribePause = time.Second

// persist subscribes anew, whenever a subscription ends, until ctx does.
func persist(ctx context.Context, log *slog.Logger, what string, follow func(context.Context) error) {
	for {
		began := time.Now()
		err := follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > resubscribePause {
			// Above all ENOBUFS: the kernel had more events than the socket could hold. Looking again mends it.
			log.Debug("a subscription was lost, beginning anew", "what", what, "error", err)
			continue
		}
		log.Warn("not followed, trying again", "what", what, "error", err, "pause", resubscribePause)
		if !sleep(ctx, resubscribePause) {
			return
		}
	}
}

// sleep returns false when ctx ends first.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
