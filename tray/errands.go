package tray

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"netvmd/dbus"
	"netvmd/internal/netvm"
	"netvmd/tray/view"
)

// The programs that are started.
const (
	editor   = "nm-connection-editor"
	opener   = "xdg-open"
	reporter = "netvmctl"
)

// errands does what a click asks for.
type errands struct {
	environ []string // of the programs that are started
	copy    func(text string)
}

// find says where a program is. netvmctl may stand beside this one, as where both were built.
func find(program string) (string, error) {
	if self, err := os.Executable(); err == nil && program == reporter {
		if beside, err := exec.LookPath(filepath.Join(filepath.Dir(self), program)); err == nil {
			return beside, nil
		}
	}
	return exec.LookPath(program)
}

// hindered says which actions cannot be done here, and why.
func hindered() map[view.Action]string {
	needs := map[view.Action]string{
		view.Edit: editor, view.Login: opener, view.CopyReport: reporter, view.SaveReport: reporter,
	}
	why := map[view.Action]string{}
	for action, program := range needs {
		if _, err := find(program); err != nil {
			why[action] = program + " is not installed"
		}
	}
	return why
}

func (e *errands) do(ctx context.Context, action view.Action, known view.Known, outcomes chan<- outcome) {
	tell := func(o outcome) {
		select {
		case outcomes <- o:
		case <-ctx.Done():
		}
	}
	sentence, left, err := e.attempt(ctx, action, known)
	if err != nil {
		sentence = err.Error()
	}
	tell(outcome{sentence: sentence, done: true})
	if left == nil {
		return
	}
	if err := left.Wait(); err != nil {
		tell(outcome{sentence: failure(filepath.Base(left.Path), err)})
	}
}

// attempt says what came of an action; left is a program that was left running.
func (e *errands) attempt(ctx context.Context, action view.Action, known view.Known) (sentence string, left *exec.Cmd, err error) {
	switch action {
	case view.Refresh:
		sentence, err = refresh(ctx)
	case view.Edit:
		sentence = "The connection editor was started"
		left, err = e.launch(ctx, editor)
	case view.Login:
		sentence = "The portal was opened: " + known.Status.PortalURL
		left, err = e.openPortal(ctx, known.Status.PortalURL)
	case view.CopyReport:
		sentence, err = e.copyReport(ctx)
	case view.SaveReport:
		sentence, err = e.saveReport(ctx)
	default:
		err = fmt.Errorf("%q is no action", action)
	}
	return sentence, left, err
}

// refresh has netvmd read every source again. polkit may ask the person at the screen.
func refresh(ctx context.Context) (string, error) {
	client, err := dbus.Connect(ctx)
	if err != nil {
		return "", fmt.Errorf("DNS was not refreshed: %w", err)
	}
	defer func() { _ = client.Close() }() // the answer is there
	switch changed, err := client.Refresh(ctx); {
	case err != nil:
		return "", fmt.Errorf("DNS was not refreshed: %w", err)
	case changed:
		return "DNS was refreshed, and the rules were changed", nil
	}
	return "DNS was refreshed: all was as it should be", nil
}

// openPortal has a browser open an address that came from elsewhere.
func (e *errands) openPortal(ctx context.Context, text string) (*exec.Cmd, error) {
	address, err := netvm.ParsePortalURL(text)
	if err != nil {
		return nil, fmt.Errorf("%s is not given the portal's address: %w", opener, err)
	}
	return e.launch(ctx, opener, address)
}

// launch starts a program of the person's own, which goes on when the tray ends.
func (e *errands) launch(ctx context.Context, program string, args ...string) (*exec.Cmd, error) {
	path, err := find(program)
	if err != nil {
		return nil, fmt.Errorf("%s is not installed", program)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), path, args...)
	cmd.Env = e.environ
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return cmd, nil
}

// failure says how a program ended.
func failure(program string, err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return fmt.Sprintf("%s failed with exit code %d", program, exit.ExitCode())
	}
	return fmt.Sprintf("%s failed: %v", program, err)
}

// readEvery is how often the counters are read while the menu is open.
const readEvery = time.Second

// readLive reads the counters and the routes at once and then again and again, until ctx ends.
func readLive(log *slog.Logger) func(context.Context, chan<- reading) {
	return func(ctx context.Context, readings chan<- reading) {
		client, err := dbus.Connect(ctx)
		if err != nil {
			log.Debug("no counters", "error", err)
			return
		}
		defer func() { _ = client.Close() }() // nothing is awaited
		again := time.NewTicker(readEvery)
		defer again.Stop()
		for {
			r, err := readOnce(ctx, client)
			if err != nil {
				log.Debug("no counters", "error", err)
			} else {
				select {
				case readings <- r:
				case <-ctx.Done():
				}
			}
			select {
			case <-again.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

func readOnce(ctx context.Context, client *dbus.Client) (reading, error) {
	_, tally, err := client.Statistics(ctx)
	if err != nil {
		return reading{}, err
	}
	routes, err := client.Routes(ctx)
	return reading{traffic: tally.Traffic, routes: routes}, err
}
