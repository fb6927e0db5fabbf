package lab

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"netvmd/internal/lab/notify"
)

const notifySocket = netvmdDir + "/notify"

// StartNetvmd starts the daemon and waits until it says READY=1 (sd_notify(3)).
func (v *NetVM) StartNetvmd(ctx context.Context) error {
	if v.options.Netvmd == "" {
		return errors.New("netvm: no netvmd was given to the lab")
	}
	v.notices.Close()
	var err error
	if v.notices, err = notify.Listen(notifySocket); err != nil {
		return fmt.Errorf("netvm: %w", err)
	}
	level := v.options.LogLevel
	if level == "" {
		level = "debug"
	}
	cmd := daemonCommand(ctx, v.options.Netvmd, "--config", configPath, "--log-level", level)
	cmd.Env = append(v.Environ(), "NOTIFY_SOCKET="+notifySocket)
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

// NetvmdConfig returns the path of the daemon's configuration; programs given to Run take it as --config.
func (v *NetVM) NetvmdConfig() string { return configPath }

// RuntimeDir is netvmd's, where the records of the vifs are.
func (v *NetVM) RuntimeDir() string { return netvmdDir + "/run" }

// StateDir is netvmd's, where the persistent override is.
func (v *NetVM) StateDir() string { return netvmdDir + "/state" }
