package vif

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// hookTimeout bounds one hook. Xen kills a hotplug program after 40 s (LIBXL_HOTPLUG_TIMEOUT).
const hookTimeout = 10 * time.Second

// hookOutput is how much of what a hook says is logged, in bytes.
const hookOutput = 512

// runHooks runs the admin's programs, in the order of their names: HOOK online|offline VIF TYPE [ADDRESS], at online
// once for each address, as Qubes does. One that fails is logged and stops nothing.
func (s *Setup) runHooks(ctx context.Context, command string, spec Spec) {
	if s.Hooks == "" {
		return
	}
	entries, err := os.ReadDir(s.Hooks)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.Log.Warn("hooks cannot be read", "folder", s.Hooks, "error", err)
		}
		return
	}
	for _, e := range entries {
		path := filepath.Join(s.Hooks, e.Name())
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		if len(spec.Addresses) == 0 {
			s.runHook(ctx, path, command, spec.Name, spec.Type)
		}
		for _, a := range spec.Addresses {
			s.runHook(ctx, path, command, spec.Name, spec.Type, a.String())
		}
	}
}

func (s *Setup) runHook(ctx context.Context, path string, args ...string) {
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	// A hook that hangs often waits for a program that it has started, which ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		said := strings.TrimSpace(string(out[:min(len(out), hookOutput)]))
		s.Log.Warn("hook failed", "vif", args[1], "hook", path, "error", err, "said", said)
	}
}
