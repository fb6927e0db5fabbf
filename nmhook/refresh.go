package nmhook

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// endLocked notes that the read of a source that is under way has ended, and how. For the bus itself, which is not read,
// it tells those who wait that it came or went.
func (b *board) endLocked(s source, err error) {
	if s < readSources {
		b.ended[s], b.failed[s] = b.begun[s], err
	}
	close(b.turned)
	b.turned = make(chan struct{})
}

// refresh has every source read, and waits for the reads that begin after the call: one that is under way may have
// looked before what the caller wants seen.
func (b *board) refresh(ctx context.Context) error {
	b.mu.Lock()
	after := b.begun
	b.mu.Unlock()
	b.markAll(pending{})
	for {
		silent, turned, err := b.unread(after)
		if len(silent) == 0 {
			return err
		}
		select {
		case <-turned:
		case <-ctx.Done():
			return errors.Join(err, fmt.Errorf("no answer from %s: %w", strings.Join(silent, ", "), ctx.Err()))
		}
	}
}

// unread names the sources of which no read has ended that began after those, joins why others could not be read, and
// gives a channel that is closed when that may be different. While the bus is away, so are the sources on it.
func (b *board) unread(after [readSources]uint64) (silent []string, turned <-chan struct{}, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	away := len(b.faults[sourceBus]) > 0
	var failed []error
	for s := source(0); s < readSources; s++ {
		switch {
		case away && s != sourceResolvConf && s != sourceChained:
		case b.ended[s] <= after[s]:
			silent = append(silent, sourceTitles[s])
		case b.failed[s] != nil:
			failed = append(failed, b.failed[s])
		}
	}
	return silent, b.turned, errors.Join(failed...)
}
