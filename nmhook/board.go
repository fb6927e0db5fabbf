package nmhook

import (
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"netvmd/internal/netvm"
)

// source is one thing that is read in whole.
type source int

const (
	sourceNMDNS source = iota
	sourceUplinks
	sourceResolved
	sourceResolvConf
	sourceChained
	readSources               // how many sources are read
	sourceBus   = readSources // not read: only a place for its fault
)

var sourceNames = [...]string{"networkmanager-dns", "uplinks", "resolved", "resolv.conf", "chained", "system-bus"}

func (s source) String() string { return sourceNames[s] }

// sourceTitles are what people know the sources by that are read.
var sourceTitles = [readSources]string{"NetworkManager (its DNS configuration)", "NetworkManager (its uplinks)", "systemd-resolved", "resolv.conf", "the kernel (its routes)"}

// pending is what waits to be answered by a view: signals that came in.
type pending struct {
	arrived time.Time // of the oldest; zero when no signal asked
	signals int
}

func (p pending) merge(o pending) pending {
	if p.arrived.IsZero() || (!o.arrived.IsZero() && o.arrived.Before(p.arrived)) {
		p.arrived = o.arrived
	}
	p.signals += o.signals
	return p
}

// board is where the sources' readers put what they read, and where the view is taken from. Values on it are
// replaced, never changed.
type board struct {
	log     *slog.Logger
	changed chan struct{} // capacity 1

	mu      sync.Mutex
	view    netvm.View // without Faults, Arrived and Signals
	faults  [readSources + 1][]string
	settled [readSources]bool // was read once, or is known to be absent
	ready   bool              // the first token may be given
	fresh   bool              // something changed since the last take
	untaken pending
	dirty   [readSources]pending
	kick    [readSources]chan struct{} // capacity 1: the source is dirty
	carried uint64                     // how often a signal's own value was put up, see reader.publish

	begun  [readSources]uint64 // reads of each source; one at a time is under way
	ended  [readSources]uint64 // which of them was the last that gave something, or failed for good
	failed [readSources]error  // why it failed; nil = it did not
	turned chan struct{}       // closed and replaced when one ends, and when the bus comes or goes
}

func newBoard(log *slog.Logger, resolvConf string) *board {
	b := &board{log: log, changed: make(chan struct{}, 1), turned: make(chan struct{})}
	for s := range b.kick {
		b.kick[s] = make(chan struct{}, 1)
	}
	b.view.State = netvm.Offline
	b.view.ResolvConf = netvm.ResolvConf{Path: resolvConf, Owner: netvm.ResolvConfAbsent}
	return b
}

// mark makes a source dirty.
func (b *board) mark(s source, p pending) {
	b.mu.Lock()
	b.dirty[s] = b.dirty[s].merge(p)
	b.mu.Unlock()
	select {
	case b.kick[s] <- struct{}{}:
	default: // is dirty already
	}
}

// putBack returns what was collected for a source that could not be read, without asking for another read.
func (b *board) putBack(s source, p pending) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dirty[s] = b.dirty[s].merge(p)
}

// kickOnly has a source read although no signal waits for the answer.
func (b *board) kickOnly(s source) { b.mark(s, pending{}) }

// markAll makes every source dirty. A signal that does counts for each: which of them differs is not known yet.
func (b *board) markAll(p pending) {
	for s := source(0); s < readSources; s++ {
		b.mark(s, p)
	}
}

// collect takes what waits for a source, before it is read: a signal that comes during the reading makes it
// dirty again.
func (b *board) collect(s source) (p pending, carried uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, b.dirty[s] = b.dirty[s], pending{}
	b.begun[s]++
	return p, b.carried
}

// publish puts up what was read from a source: change is called with the view to be changed, faults are all
// that is wrong with the source now. If nothing is different, no token is given.
func (b *board) publish(s source, answered pending, faults []string, change func(*netvm.View)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.publishLocked(s, answered, faults, change)
	b.endLocked(s, nil)
}

// publishFailed is publish for a source that could not be read: what it said last stays.
func (b *board) publishFailed(s source, answered pending, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.publishLocked(s, answered, []string{err.Error()}, nil)
	b.endLocked(s, err)
}

// publishRead is publish for a value that was asked for when the count of carried values was as given. It does
// nothing and returns false if a signal has carried a newer value since: the source is dirty again then.
func (b *board) publishRead(s source, answered pending, carried uint64, faults []string, change func(*netvm.View)) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s == sourceNMDNS && carried != b.carried {
		b.dirty[s] = b.dirty[s].merge(answered)
		return false
	}
	b.publishLocked(s, answered, faults, change)
	b.endLocked(s, nil)
	return true
}

// publishCarried puts up a value of NetworkManager's DNS configuration that a signal carried.
func (b *board) publishCarried(answered pending, faults []string, change func(*netvm.View)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.carried++
	b.publishLocked(sourceNMDNS, answered, faults, change)
}

func (b *board) publishLocked(s source, answered pending, faults []string, change func(*netvm.View)) {
	next := b.view
	if change != nil {
		change(&next)
	}
	different := !reflect.DeepEqual(next, b.view)
	b.view = next
	faults = sentences(faults)
	if !slices.Equal(b.faults[s], faults) {
		b.logFaults(s, b.faults[s], faults)
		b.faults[s] = faults
		different = true
	}
	switch {
	case different:
		b.fresh = true
		b.untaken = b.untaken.merge(answered)
	case b.fresh: // answered together with the change that waits to be taken, but not its cause
		b.untaken.signals += answered.signals
	default:
		b.log.Debug("read again, nothing is different", "source", s, "signals", answered.signals)
	}
	if s < readSources {
		b.settled[s] = true
	}
	b.offerLocked()
}

// maxFault bounds a fault, in bytes, maxFaults their number for each source.
const (
	maxFault  = 400
	maxFaults = 16
)

// sentences makes each fault one short line of valid text, whatever a service has put into its error message.
func sentences(faults []string) []string {
	if len(faults) > maxFaults {
		more := fmt.Sprintf("%d more faults of this source", len(faults)-maxFaults)
		faults = append(slices.Clone(faults[:maxFaults]), more)
	}
	out := make([]string, 0, len(faults))
	for _, f := range faults {
		f = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return ' '
			}
			return r
		}, f)
		if len(f) > maxFault {
			f = f[:maxFault] + "…"
		}
		out = append(out, strings.ToValidUTF8(f, "\uFFFD"))
	}
	return out
}

// logFaults is for who follows the watcher itself: the engine logs faults as problems, once.
func (b *board) logFaults(s source, old, now []string) {
	for _, f := range now {
		if !slices.Contains(old, f) {
			b.log.Debug("source has a fault", "source", s, "fault", f)
		}
	}
	for _, f := range old {
		if !slices.Contains(now, f) {
			b.log.Debug("source has recovered", "source", s, "fault", f)
		}
	}
}

// offerLocked gives the token if there is something to take.
func (b *board) offerLocked() {
	if !b.ready {
		if slices.Contains(b.settled[:], false) {
			return
		}
		b.ready, b.fresh = true, true
	}
	if !b.fresh {
		return
	}
	select {
	case b.changed <- struct{}{}:
	default: // the last one was not received yet
	}
}

// giveUpWaiting lets the first token out although a source has not said a word.
func (b *board) giveUpWaiting() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.settled {
		if !b.settled[s] {
			b.log.Warn("source is silent, going on without it", "source", source(s), "timeout", firstReadTimeout)
			b.settled[s] = true
		}
	}
	b.offerLocked()
}

// settle notes that sources are absent, so that the first token does not wait for them.
func (b *board) settle(sources ...source) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range sources {
		b.settled[s] = true
	}
	b.offerLocked()
}

func (b *board) take() netvm.View {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.changed:
	default:
	}
	v := b.view
	for _, faults := range b.faults {
		v.Faults = append(v.Faults, faults...)
	}
	v.Arrived, v.Signals = b.untaken.arrived, b.untaken.signals
	b.fresh, b.untaken = false, pending{}
	return v
}
