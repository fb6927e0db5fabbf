// Package doctor looks whether a machine has what a netvm needs, and says how to mend what it lacks; in dom0, whether the
// netvm is isolated, and in a domain that a netvm serves, whether it is set up for that. Each check reads a few facts and
// judges them; none changes anything, and one that cannot find out says so.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"
)

// State is the outcome of a check.
type State string

// The states.
const (
	OK      State = "ok"
	Warning State = "warning" // AppVMs are served, but not as well or not as safely as they could be
	Failed  State = "failed"  // AppVMs lack something, or dom0 is not safe from the network
	Unknown State = "unknown" // it could not be found out
)

// Result is what one check found.
type Result struct {
	ID     string `json:"id"` // stable
	Title  string `json:"title"`
	State  State  `json:"state"`
	Found  string `json:"found"`  // one line
	Remedy string `json:"remedy"` // one line, one thing to do; "" = nothing is to be done
}

// Options say what is looked at.
type Options struct {
	Config  string // the value of --config
	Version string // the caller's own, which netvmd's should be
}

// checkTimeout bounds each check. Most take a millisecond; with iptables, which starts dozens of processes, a second.
const checkTimeout = 15 * time.Second

// Run makes all checks at the same time and gives their results in an order that is always the same. It returns when the
// slowest is done, or soon after ctx ended.
func Run(ctx context.Context, o Options) []Result {
	ctx, cancel := context.WithCancel(ctx) // for what is later than its check
	defer cancel()
	m := newMachine(ctx, o)
	defer m.close()
	return diagnose(ctx, m, m.checks(ctx), checkTimeout)
}

// finding is what a check says of the facts.
type finding struct {
	state         State
	found, remedy string
}

func fine(format string, values ...any) finding {
	return finding{state: OK, found: fmt.Sprintf(format, values...)}
}

func warn(found, remedy string) finding { return finding{Warning, found, remedy} }

func fail(found, remedy string) finding { return finding{Failed, found, remedy} }

// check is one thing that a netvm needs.
type check struct {
	id, title string
	root      bool // nobody else can find out
	look      func(context.Context, *machine) (finding, error)
}

// judged makes a check of facts and what is to be said of them.
func judged[F interface{ judge() finding }](read func(context.Context, *machine) (F, error)) func(context.Context, *machine) (finding, error) {
	return func(ctx context.Context, m *machine) (finding, error) {
		facts, err := read(ctx, m)
		if err != nil {
			return finding{}, err
		}
		return facts.judge(), nil
	}
}

func diagnose(ctx context.Context, m *machine, checks []check, timeout time.Duration) []Result {
	results := make([]Result, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		all.Add(1)
		go func() {
			defer all.Done()
			f := c.examine(ctx, m, timeout)
			results[i] = Result{ID: c.id, Title: c.title, State: f.state, Found: oneLine(f.found), Remedy: oneLine(f.remedy)}
		}()
	}
	all.Wait()
	return results
}

// examine makes one check within the time that it has.
func (c check) examine(ctx context.Context, m *machine, timeout time.Duration) finding {
	if c.root && m.uid != 0 {
		return needsRoot
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	done := make(chan finding, 1)
	go func() { done <- c.finding(ctx, m) }()
	select {
	case f := <-done:
		return f
	case <-ctx.Done():
		return finding{state: Unknown, found: "there was no answer in time: " + ctx.Err().Error()}
	}
}

// needsRoot is what is found out without rights.
var needsRoot = finding{Unknown, "only root can find out", "Run it as root: sudo netvmctl doctor"}

func (c check) finding(ctx context.Context, m *machine) finding {
	f, err := c.look(ctx, m)
	switch {
	case err == nil:
		return f
	case m.uid != 0 && errors.Is(err, fs.ErrPermission):
		return needsRoot
	}
	return finding{state: Unknown, found: err.Error()}
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
