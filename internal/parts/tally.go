package parts

import (
	"context"
	"fmt"
	"log/slog"

	"netvmd/internal/config"
	"netvmd/internal/firewall"
	"netvmd/internal/netvm"
	"netvmd/internal/vif"
)

// Tally returns what reads the kernel's counts: what the firewall stopped and what passed the vifs. It may be called by
// several goroutines; they take turns, and each waits no longer than its ctx. Its firewall is opened by the first call
// that can, so that a program which is never asked pays nothing. With iptables each call starts processes.
func Tally(conf config.Config, log *slog.Logger) func(context.Context) (netvm.Tally, error) {
	turn := make(chan firewall.Backend, 1)
	turn <- nil
	return func(ctx context.Context) (netvm.Tally, error) {
		var rules firewall.Backend
		select {
		case <-ctx.Done():
			return netvm.Tally{}, fmt.Errorf("wait for the firewall's counters: %w", ctx.Err())
		case rules = <-turn:
		}
		defer func() { turn <- rules }()
		if rules == nil {
			opened, err := Firewall(ctx, conf, log)
			if err != nil {
				return netvm.Tally{}, err
			}
			rules = opened
		}
		return count(ctx, rules)
	}
}

func count(ctx context.Context, rules firewall.Backend) (netvm.Tally, error) {
	counters, err := rules.Counters(ctx)
	if err != nil {
		return netvm.Tally{}, err
	}
	t := firewall.Tally(counters)
	t.Traffic, err = vif.Traffic()
	return t, err
}
