package dom0

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"netvmd/internal/words"
)

const (
	// xlTimeout bounds one run of xl. Attaching and detaching a card wait for its backend, 10 s and 40 s for its hotplug
	// script at most (libxl, LIBXL_INIT_TIMEOUT and LIBXL_HOTPLUG_TIMEOUT).
	xlTimeout = 60 * time.Second
	// xlEnd is how long an xl that was asked to end may still take.
	xlEnd = 5 * time.Second
)

// xl runs Xen's command line.
type xl struct {
	lock *os.File // every xl holds it too: one may still be at work when this program has been killed; nil = none
}

// list gives all domains.
func (x xl) list(ctx context.Context) ([]Domain, error) {
	out, err := x.run(ctx, "list", "-v")
	if err != nil {
		return nil, err
	}
	return parseList(out)
}

// run returns what xl prints. The end of ctx does not stop it half-way: a card that is attached by half is no better than
// one that is, and less easily taken back.
func (x xl) run(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), xlTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "xl", args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = xlEnd
	if x.lock != nil {
		cmd.ExtraFiles = []*os.File{x.lock}
	}
	// Ctrl-C in a terminal is for its foreground group, and xl is not to end by it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w%s", command(args...), errors.Join(err, ctx.Err()), quoted(complaints.String()))
	}
	return out.String(), nil
}

// quoted is what a program complained of, on one line.
func quoted(complaints string) string {
	if text := strings.Join(strings.Fields(complaints), " "); text != "" {
		return ": " + words.Clip(words.Harmless(text), maxComplaint)
	}
	return ""
}

// maxComplaint is how much is shown of what xl or a netvm complains of, in columns.
const maxComplaint = 400

// command is a run of xl, as a person would type it.
func command(args ...string) string { return "xl " + strings.Join(args, " ") }

func pauseArgs(id int) []string   { return []string{"pause", strconv.Itoa(id)} }
func unpauseArgs(id int) []string { return []string{"unpause", strconv.Itoa(id)} }

// attachArgs gives dom0 a card. The words are those of xl-network-configuration(5).
func attachArgs(a attach) []string {
	return []string{"network-attach", "0", "backend=" + a.Backend.Name, "script=" + hotplugScript, "mac=" + a.MAC, "ip=" + a.Address.String()}
}

// hotplugScript is what Xen runs in the netvm.
const hotplugScript = "vif-route-netvm"

func detachArgs(mac string) []string { return []string{"network-detach", "0", mac} }
