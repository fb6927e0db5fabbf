package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	logDir = Root + "/log"

	// startTimeout is for a daemon to say that it is ready; they take some 100 ms on a quiet machine.
	startTimeout = 30 * time.Second
	// stopTimeout is for a daemon to end after a polite signal, before SIGKILL.
	stopTimeout = 5 * time.Second
)

// Process is a daemon of the lab. What it prints goes to Root/log/NAME.log.
type Process struct {
	Name string

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and its output is read
	err  error         // valid after done

	lines lines
}

// daemonCommand prepares a daemon. It lives until it is stopped, not only as long as the call that starts it.
func daemonCommand(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(context.WithoutCancel(ctx), name, args...)
}

// StartDaemon starts cmd where this program is, not in a host of the lab. With a non-empty ready it returns when the
// program has printed a line that contains it; else at once.
func StartDaemon(ctx context.Context, name, ready string, cmd *exec.Cmd) (*Process, error) {
	return follow(ctx, name, ready, cmd, (*exec.Cmd).Start)
}

// startDaemon is StartDaemon in the host.
func (h *Host) startDaemon(ctx context.Context, name, ready string, cmd *exec.Cmd) (*Process, error) {
	return follow(ctx, name, ready, cmd, h.Start)
}

// follow starts cmd by start and follows what it prints.
func follow(ctx context.Context, name, ready string, cmd *exec.Cmd, start func(*exec.Cmd) error) (*Process, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	log, err := openLog(name)
	if err != nil {
		return nil, errors.Join(err, out.Close(), in.Close())
	}
	cmd.Stdout, cmd.Stderr = in, in
	// A session of its own keeps the terminal's Ctrl-C for the lab, which ends its daemons in order.
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	err = start(cmd)
	if closeErr := in.Close(); err != nil || closeErr != nil {
		return nil, errors.Join(err, closeErr, out.Close(), log.Close())
	}
	p := &Process{Name: name, cmd: cmd, done: make(chan struct{})}
	seen := make(chan struct{})
	go p.follow(out, log, ready, seen)
	if ready == "" {
		return p, nil
	}
	return p, p.await(ctx, seen, fmt.Sprintf("print %q", ready))
}

func openLog(name string) (*os.File, error) {
	if err := os.MkdirAll(logDir, 0o755); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	log, err := os.OpenFile(logPath(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return log, nil
}

func logPath(name string) string { return filepath.Join(logDir, name+".log") }

// follow copies the program's output to its log, closes seen at the line that says ready, and reaps.
func (p *Process) follow(out io.ReadCloser, log io.WriteCloser, ready string, seen chan<- struct{}) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		// The log is on the lab's own tmpfs; were it full, the program must run on nevertheless.
		_, _ = io.WriteString(log, line)
		if line != "" { // at the end there is none
			p.lines.add(line)
		}
		if seen != nil && ready != "" && strings.Contains(line, ready) {
			close(seen)
			seen = nil
		}
		if err != nil {
			break
		}
	}
	p.err = p.cmd.Wait()
	_ = errors.Join(out.Close(), log.Close()) // both were used to their end
	close(p.done)
}

// await waits for an event that shows that the program is ready, and kills it when that does not come.
func (p *Process) await(ctx context.Context, event <-chan struct{}, what string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case <-event:
		return nil
	case <-p.done:
		return fmt.Errorf("%s ended before it did %s: %w; its last words: %s", p.Name, what, p.err, lastWords(p.Name))
	case <-ctx.Done():
		p.signal(syscall.SIGKILL)
		return fmt.Errorf("%s did not %s: %w; its last words: %s", p.Name, what, ctx.Err(), lastWords(p.Name))
	}
}

// PID returns the process's number, as the lab sees it.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("%s: send %s: %w", p.Name, s, err)
	}
	return nil
}

// signal is Signal to a process that may be gone already.
func (p *Process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// Stop sends a signal and waits until the process has ended; after stopTimeout it is killed and that is an
// error.
func (p *Process) Stop(ctx context.Context, s syscall.Signal) error {
	if p == nil {
		return nil
	}
	p.signal(s)
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.signal(syscall.SIGKILL)
		<-p.done
		return fmt.Errorf("%s did not end on %s and was killed: %w", p.Name, s, ctx.Err())
	}
}

// Ended is closed when the process has ended and all that it printed is read.
func (p *Process) Ended() <-chan struct{} { return p.done }

// ExitError tells how the process ended: nil while it runs and after exit code 0.
func (p *Process) ExitError() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// lastWords returns the end of a program's log, for an error message.
func lastWords(name string) string {
	text, err := os.ReadFile(logPath(name))
	if err != nil {
		return err.Error()
	}
	const most = 1500
	if len(text) > most {
		text = text[len(text)-most:]
	}
	if len(text) == 0 {
		return "(none)"
	}
	return strings.TrimSpace(string(text))
}

// Logs returns what the daemons of the lab have printed so far, by their names.
func Logs() (map[string]string, error) {
	entries, err := os.ReadDir(logDir)
	if err != nil {
		return nil, fmt.Errorf("lab: read the logs: %w", err)
	}
	logs := make(map[string]string, len(entries))
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(logDir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("lab: read the logs: %w", err)
		}
		logs[strings.TrimSuffix(e.Name(), ".log")] = string(text)
	}
	return logs, nil
}
