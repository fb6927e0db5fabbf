// Package parts opens what more than one program is made of, as the configuration says.
package parts

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"

	"netvmd/internal/config"
	"netvmd/internal/firewall"
	"netvmd/internal/netvm"
	"netvmd/internal/store"
	"netvmd/internal/vif"
)

// Firewall opens a backend. It is for one goroutine at a time, so a program may want several. When the kernel has lost
// who may send from where, it goes by the records of the vifs.
func Firewall(ctx context.Context, conf config.Config, log *slog.Logger) (firewall.Backend, error) {
	return firewall.New(ctx, firewallOptions(conf, log))
}

func firewallOptions(conf config.Config, log *slog.Logger) firewall.Options {
	return firewall.Options{
		Kind: string(conf.Firewall.Backend), Base: string(conf.Firewall.Base), Flowtable: string(conf.Firewall.Flowtable),
		Lock: firewall.LockPath(conf.RuntimeDir), Log: log,
		Known: vif.NewRecords(conf.RuntimeDir).Admissions,
	}
}

// Unload takes all rules of netvmd out of the kernel, as firewall.Unload does.
func Unload(ctx context.Context, conf config.Config, force bool, log *slog.Logger) (changes []string, err error) {
	return firewall.Unload(ctx, firewallOptions(conf, log), force)
}

// StoreOptions say which store to open.
func StoreOptions(conf config.Config) store.Options {
	return store.Options{
		Kind: string(conf.Store.Kind), QubesDBSocket: conf.Store.QubesDBSocket, XenStorePath: conf.Store.XenStorePath,
	}
}

// Settings reads what the configuration and, where that leaves it open, the store say about all vifs. done closes the
// store, which the settings go on asking.
func Settings(ctx context.Context, conf config.Config) (settings vif.Settings, done func(), err error) {
	from, err := store.Open(ctx, StoreOptions(conf))
	if err != nil {
		return vif.Settings{}, nil, err
	}
	said, err := from.Settings(ctx)
	if err != nil {
		return vif.Settings{}, nil, errors.Join(err, from.Close())
	}
	settings = vif.Settings{
		Gateway: said.Gateway, Gateway6: said.Gateway6, Virtual: conf.DNS.VirtualOr(said.Virtual),
		Harden: conf.Vif.Harden == config.HardenAlways || conf.Vif.Harden == config.HardenAuto && said.Harden,
		Mapping: func(ctx context.Context, addr netip.Addr) (visible, gateway netip.Addr, hidden bool, err error) {
			m, hidden, err := from.Mapping(ctx, addr)
			return m.Visible, m.VisibleGateway, hidden, err
		},
	}
	if conf.Vif.Gateway.IsValid() {
		settings.Gateway = conf.Vif.Gateway
	}
	if conf.Vif.Gateway6.IsValid() {
		settings.Gateway6 = conf.Vif.Gateway6
	}
	return settings, func() { _ = from.Close() }, nil // nothing was written to it
}

// Setup opens what sets up vifs; done closes it. Where no rules are loaded, those that it loads refuse the virtual DNS
// addresses.
func Setup(ctx context.Context, conf config.Config, virtual []netip.Addr, log *slog.Logger) (setup *vif.Setup, done func(), err error) {
	gate, err := Firewall(ctx, conf, log)
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

// Admissions are who must be able to send from where, by the records of the vifs.
func Admissions(conf config.Config) ([]netvm.Admission, error) {
	return vif.NewRecords(conf.RuntimeDir).Admissions()
}
