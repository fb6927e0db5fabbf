package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"

	"netvmd/internal/config"
	"netvmd/internal/firewall"
	"netvmd/internal/store"
	"netvmd/internal/vif"
)

// netVM is what is said about the netvm itself.
type netVM struct {
	settings vif.Settings
	close    func()
}

// openNetVM reads the netvm's settings: from its configuration, and what that leaves open from the store.
func openNetVM(ctx context.Context, conf config.Config) (netVM, error) {
	from, err := store.Open(ctx, store.Options{
		Kind: string(conf.Store.Kind), QubesDBSocket: conf.Store.QubesDBSocket, XenStorePath: conf.Store.XenStorePath,
	})
	if err != nil {
		return netVM{}, err
	}
	said, err := from.Settings(ctx)
	if err != nil {
		return netVM{}, errors.Join(err, from.Close())
	}
	gateway, gateway6 := said.Gateway, said.Gateway6
	if conf.Vif.Gateway.IsValid() {
		gateway = conf.Vif.Gateway
	}
	if conf.Vif.Gateway6.IsValid() {
		gateway6 = conf.Vif.Gateway6
	}
	return netVM{
		settings: vif.Settings{
			Gateway: gateway, Gateway6: gateway6, Virtual: conf.DNS.VirtualOr(said.Virtual),
			Harden: conf.Vif.Harden == config.HardenAlways || conf.Vif.Harden == config.HardenAuto && said.Harden,
			Mapping: func(ctx context.Context, addr netip.Addr) (visible, gateway netip.Addr, hidden bool, err error) {
				m, hidden, err := from.Mapping(ctx, addr)
				return m.Visible, m.VisibleGateway, hidden, err
			},
		},
		close: func() { _ = from.Close() }, // nothing was written to it
	}, nil
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
