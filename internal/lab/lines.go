package lab

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
)

// lines is what a program has printed, for those who wait for a line.
type lines struct {
	mu      sync.Mutex
	all     []string
	changed chan struct{} // closed with each line; nil while nobody waits
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// since returns the lines from the mark on, and a channel that is closed when there are more.
func (l *lines) since(mark int) (fresh []string, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.all[mark:], l.changed
}

// LogLength is how many lines the program has printed: a mark for AwaitLog.
func (p *Process) LogLength() int {
	fresh, _ := p.lines.since(0)
	return len(fresh)
}

// Log returns the lines that the program has printed so far, each with its end.
func (p *Process) Log() []string {
	all, _ := p.lines.since(0)
	return all
}

// AwaitLog waits for a line that contains all the words, printed after the mark, and returns it.
func (p *Process) AwaitLog(ctx context.Context, mark int, words ...string) (string, error) {
	for {
		fresh, more := p.lines.since(mark)
	search:
		for _, line := range fresh {
			for _, w := range words {
				if !strings.Contains(line, w) {
					continue search
				}
			}
			return line, nil
		}
		mark += len(fresh)
		select {
		case <-more:
		case <-p.done:
			return "", fmt.Errorf("%s ended without a line that contains %q", p.Name, words)
		case <-ctx.Done():
			return "", fmt.Errorf("%s printed no line that contains %q: %w", p.Name, words, ctx.Err())
		}
	}
}

// ClearLogs forgets what the daemons of labs that were closed have printed.
func ClearLogs() error { return os.RemoveAll(logDir) }
