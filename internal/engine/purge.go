package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"netvmd/internal/netvm"
)

// purge forgets the flows that a change of targets left behind, in a goroutine of its own: a table of many flows must
// not delay the next change.
type purge struct {
	flows      Flows
	log        *slog.Logger
	secondLook time.Duration
	changed    chan struct{} // capacity 1

	mu      sync.Mutex
	targets []netvm.Target     // what is in the kernel
	held    bool               // it is being changed
	stop    context.CancelFunc // ends the look that is under way; nil = none is
}

func newPurge(p Parts) *purge {
	return &purge{flows: p.Flows, log: p.Log, secondLook: p.SecondLook, changed: make(chan struct{}, 1)}
}

// hold ends the look that is under way and lets none begin while the targets change: by the new ones, the flows that
// it deletes may carry queries whose answers are on their way. resume or follow undoes it.
func (p *purge) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = true
	if p.stop != nil {
		p.stop()
	}
}

// resume says that the targets are as before.
func (p *purge) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = false
}

// follow tells of the targets that are in the kernel now; it does not block.
func (p *purge) follow(targets []netvm.Target) {
	p.mu.Lock()
	p.targets, p.held = targets, false
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// begin gives the targets to look by; false = not now. stop ends the look.
func (p *purge) begin(stop context.CancelFunc) ([]netvm.Target, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held {
		return nil, false
	}
	p.stop = stop
	return p.targets, true
}

func (p *purge) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop = nil
}

// run looks at the flows at once after each change, and again when the answers on their way have arrived.
func (p *purge) run(ctx context.Context) {
	again := stopped()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.changed:
			p.look(ctx, "flows to resolvers that are gone", p.flows.PurgeDead)
			if !again.Stop() {
				select {
				case <-again.C: // it fell due meanwhile, for the change before
				default:
				}
			}
			again.Reset(p.secondLook)
		case <-again.C:
			if !p.look(ctx, "flows to former resolvers", p.flows.PurgeStale) {
				again.Reset(purgeRetry)
			}
		}
	}
}

// look purges once; false = it has to be tried again.
func (p *purge) look(ctx context.Context, what string, purge func(context.Context, []netvm.Target) (int, error)) bool {
	ctx, cancel := context.WithTimeout(ctx, kernelDeadline)
	defer cancel()
	targets, ok := p.begin(cancel)
	if !ok {
		return false
	}
	defer p.end()
	n, err := purge(ctx, targets)
	switch {
	case errors.Is(ctx.Err(), context.Canceled): // held, or the daemon ends
		return false
	case err != nil:
		p.log.Error("cannot forget flows; trying again", "what", what, "err", err)
		return false
	}
	p.log.Debug("forgot flows", "what", what, "flows", n)
	return true
}
