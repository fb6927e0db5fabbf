package uplink

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// hookTimeout bounds one hook; hookOutput is how much of what it says is logged, in bytes.
const (
	hookTimeout = 10 * time.Second
	hookOutput  = 512
)

// runHooks runs the admin's programs after something changed, without arguments, as Qubes does. One that fails is logged and
// stops nothing.
func (s *Setup) runHooks(ctx context.Context, name string) {
	for _, path := range s.Hooks {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			s.Log.Warn("hook cannot be run", "interface", name, "hook", path, "error", err)
		case info.Mode().IsRegular() && info.Mode()&0o111 != 0:
			s.runHook(ctx, path, name)
		}
	}
}

func (s *Setup) runHook(ctx context.Context, path, name string) {
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), "INTERFACE="+name)
	// A hook that hangs often waits for a program that it has started, which ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		said := strings.TrimSpace(string(out[:min(len(out), hookOutput)]))
		s.Log.Warn("hook failed", "interface", name, "hook", path, "error", err, "said", said)
	}
}
