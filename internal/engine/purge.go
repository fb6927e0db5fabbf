package engine

import (
	"context"
	"log/slog"
	"time"

	"netvmd/internal/netvm"
)

// purge forgets the flows that a change of targets left behind, in a goroutine of its own: a table of many flows must
// not delay the next change.
type purge struct {
	flows      Flows
	log        *slog.Logger
	secondLook time.Duration
	changed    chan []netvm.Target // capacity 1, the latest
}

func newPurge(p Parts) *purge {
	return &purge{flows: p.Flows, log: p.Log, secondLook: p.SecondLook, changed: make(chan []netvm.Target, 1)}
}

// follow tells of new targets; it does not block.
func (p *purge) follow(targets []netvm.Target) {
	for {
		select {
		case p.changed <- targets:
			return
		case <-p.changed:
		}
	}
}

// run looks at the flows at once after each change, and again when the answers on their way have arrived.
func (p *purge) run(ctx context.Context) {
	var targets []netvm.Target
	again := stopped()
	for {
		select {
		case <-ctx.Done():
			return
		case targets = <-p.changed:
			p.look(ctx, "flows to resolvers that are gone", targets, p.flows.PurgeDead)
			again.Reset(p.secondLook)
		case <-again.C:
			if !p.look(ctx, "flows to former resolvers", targets, p.flows.PurgeStale) {
				again.Reset(purgeRetry)
			}
		}
	}
}

// look purges once; false = it has to be tried again.
func (p *purge) look(ctx context.Context, what string, targets []netvm.Target,
	purge func(context.Context, []netvm.Target) (int, error)) bool {
	limited, cancel := context.WithTimeout(ctx, kernelDeadline)
	defer cancel()
	n, err := purge(limited, targets)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		p.log.Error("cannot forget flows; trying again", "what", what, "err", err)
		return false
	default:
		p.log.Debug("forgot flows", "what", what, "flows", n)
	}
	return true
}
