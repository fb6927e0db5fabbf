package lab

import (
	"context"
	"fmt"
	"syscall"

	"netvmd/internal/lab/notify"
)

// StartNetvmd starts the daemon and waits until it says READY=1 (sd_notify(3)).
func (v *NetVM) StartNetvmd(ctx context.Context) error {
	if v.options.Netvmd == "" {
		return fmt.Errorf("%s: no netvmd was given to the lab", v.Name)
	}
	v.notices.Close()
	var err error
	if v.notices, err = notify.Listen(v.notifySocket()); err != nil {
		return fmt.Errorf("%s: %w", v.Name, err)
	}
	level := v.options.LogLevel
	if level == "" {
		level = "debug"
	}
	cmd := daemonCommand(ctx, v.options.Netvmd, "--config", v.NetvmdConfig(), "--log-level", level)
	cmd.Env = append(v.Environ(), "NOTIFY_SOCKET="+v.notifySocket())
	if v.netvmd, err = v.startDaemon(ctx, "netvmd", "", cmd); err != nil {
		return err
	}
	return v.netvmd.await(ctx, v.notices.Ready(), "say READY=1")
}

// KillNetvmd kills the daemon as a crash would.
func (v *NetVM) KillNetvmd(ctx context.Context) error { return v.netvmd.Stop(ctx, syscall.SIGKILL) }

// TermNetvmd asks the daemon to end, as a service manager would, and tells when its exit code is not 0.
func (v *NetVM) TermNetvmd(ctx context.Context) error {
	if err := v.netvmd.Stop(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	if err := v.netvmd.ExitError(); err != nil {
		return fmt.Errorf("netvmd ended on SIGTERM: %w", err)
	}
	return nil
}

// Netvmd returns the daemon's process, nil before it was started.
func (v *NetVM) Netvmd() *Process { return v.netvmd }

func (v *NetVM) notifySocket() string { return v.Dir + "/netvmd/notify" }
