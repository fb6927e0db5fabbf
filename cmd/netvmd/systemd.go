package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"netvmd/internal/config"
	"netvmd/internal/engine"
	"netvmd/internal/hooks"
)

// supervised tells systemd when AppVM DNS is in place and, where the unit has a watchdog, that the engine's
// goroutine still answers. Without NOTIFY_SOCKET it does nothing.
func supervised(ctx context.Context, e *engine.Engine, log *slog.Logger) error {
	select {
	case <-ctx.Done():
		return nil
	case <-e.Ready():
	}
	notify(log, daemon.SdNotifyReady)
	defer notify(log, daemon.SdNotifyStopping)
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("WATCHDOG_USEC: %w", err)
	}
	if interval == 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(interval / 2) // as sd_watchdog_enabled(3) recommends
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		alive, cancel := context.WithTimeout(ctx, interval/2)
		err := e.Alive(alive)
		cancel()
		if err != nil {
			log.Error("the watchdog gets no answer", "err", err)
			continue
		}
		notify(log, daemon.SdNotifyWatchdog)
	}
}

// reloads reads the configuration again at every SIGHUP. One that is wrong changes nothing.
func reloads(ctx context.Context, path string, current *settings, units *hooks.Units, log *slog.Logger) error {
	started := current.conf
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
		}
		notify(log, reloading())
		conf, err := config.Load(path)
		if err != nil {
			log.Error("the configuration is not used; the one before stays in force", "err", err)
		} else {
			for key, same := range map[string]bool{
				"runtime_dir":        conf.RuntimeDir == started.RuntimeDir,
				"state_dir":          conf.StateDir == started.StateDir,
				"dns.resolv_conf":    conf.DNS.ResolvConf == started.DNS.ResolvConf,
				"firewall.backend":   conf.Firewall.Backend == started.Firewall.Backend,
				"firewall.base":      conf.Firewall.Base == started.Firewall.Base,
				"firewall.flowtable": conf.Firewall.Flowtable == started.Firewall.Flowtable,
				"store":              conf.Store == started.Store,
			} {
				if !same {
					log.Warn("this key counts at the next start only", "key", key)
				}
			}
			units.Configure(conf.Hooks.TryRestartUnits, conf.Hooks.TryReloadUnits)
			current.reload(conf)
			log.Info("the configuration was read again")
		}
		notify(log, daemon.SdNotifyReady)
	}
}

// reloading is the message of sd_notify(3) for Type=notify-reload, with the monotonic time that it wants.
func reloading() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return daemon.SdNotifyReloading
	}
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/int64(time.Microsecond))
}

func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("cannot notify systemd", "state", state, "err", err)
	}
}
