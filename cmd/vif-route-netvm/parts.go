package main

import (
	"context"
	"log/slog"
	"net/netip"

	"netvmd/internal/config"
	"netvmd/internal/firewall"
	"netvmd/internal/vif"
)

// netVM is what is said about the netvm itself.
type netVM struct {
	settings vif.Settings
	close    func()
}

func openNetVM(_ context.Context, conf config.Config) (netVM, error) {
	return netVM{close: func() {}, settings: vif.Settings{
		Gateway: conf.Vif.Gateway, Gateway6: conf.Vif.Gateway6, Virtual: conf.DNS.VirtualOr(nil), Harden: conf.Vif.Harden == config.HardenAlways,
	}}, nil
}

// openSetup opens what sets up vifs; done closes it.
func openSetup(ctx context.Context, conf config.Config, virtual []netip.Addr, log *slog.Logger) (setup *vif.Setup, done func(), err error) {
	gate, err := firewall.New(ctx, firewall.Options{
		Kind: string(conf.Firewall.Backend), Base: string(conf.Firewall.Base), Flowtable: string(conf.Firewall.Flowtable),
		Lock: firewall.LockPath(conf.RuntimeDir), Log: log,
	})
	if err != nil {
		return nil, nil, err
	}
	flows, err := firewall.NewConntrack()
	if err != nil {
		return nil, nil, err
	}
	setup = &vif.Setup{Gate: gate, Flows: flows, Virtual: virtual, Hide: firewall.Hide, Hooks: conf.Hooks.NetworkHooksDir, Log: log}
	if err := setup.Open(conf.RuntimeDir); err != nil {
		flows.Close()
		return nil, nil, err
	}
	return setup, func() { setup.Close(); flows.Close() }, nil
}
