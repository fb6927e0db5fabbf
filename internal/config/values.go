package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Source is a value of dns.source: auto, networkmanager, resolved or resolv.conf.
type Source string

// Backend is a value of firewall.backend: auto, nftables or iptables.
type Backend string

// Base is a value of firewall.base.
type Base string

// The values of firewall.base.
const (
	BaseAuto   Base = "auto"   // load the base firewall unless Qubes' own is there
	BaseAlways Base = "always" // load it
	BaseNever  Base = "never"  // leave it to somebody else
)

// OnDrift is a value of firewall.on_drift.
type OnDrift string

// The values of firewall.on_drift.
const (
	Restore OnDrift = "restore" // undo what others change in our rules
	Warn    OnDrift = "warn"    // only say it
)

// Flowtable is a value of firewall.flowtable.
type Flowtable string

// The values of firewall.flowtable.
const (
	FlowtableAuto  Flowtable = "auto"  // where the kernel has flowtables
	FlowtableNever Flowtable = "never" // every packet takes the whole way
)

// Harden is a value of vif.harden: whether vifs get strict sysctls.
type Harden string

// The values of vif.harden.
const (
	HardenAuto   Harden = "auto" // as the Qubes service harden-network-interfaces says
	HardenAlways Harden = "always"
	HardenNever  Harden = "never"
)

// StoreKind is a value of store.kind: which store says the netvm's settings.
type StoreKind string

// The values of store.kind.
const (
	StoreAuto     StoreKind = "auto" // whichever is there
	StoreQubesDB  StoreKind = "qubesdb"
	StoreXenStore StoreKind = "xenstore"
	StoreNone     StoreKind = "none"
)

// UnmarshalText takes one of the sources.
func (s *Source) UnmarshalText(b []byte) error {
	return oneOf(s, b, "auto", "networkmanager", "resolved", "resolv.conf")
}

// UnmarshalText takes one of the backends.
func (v *Backend) UnmarshalText(b []byte) error { return oneOf(v, b, "auto", "nftables", "iptables") }

// UnmarshalText takes one of the values above.
func (v *Base) UnmarshalText(b []byte) error { return oneOf(v, b, BaseAuto, BaseAlways, BaseNever) }

// UnmarshalText takes Restore or Warn.
func (v *OnDrift) UnmarshalText(b []byte) error { return oneOf(v, b, Restore, Warn) }

// UnmarshalText takes one of the values above.
func (v *Flowtable) UnmarshalText(b []byte) error {
	return oneOf(v, b, FlowtableAuto, FlowtableNever)
}

// UnmarshalText takes one of the values above.
func (v *Harden) UnmarshalText(b []byte) error {
	return oneOf(v, b, HardenAuto, HardenAlways, HardenNever)
}

// UnmarshalText takes one of the values above.
func (v *StoreKind) UnmarshalText(b []byte) error {
	return oneOf(v, b, StoreAuto, StoreQubesDB, StoreXenStore, StoreNone)
}

func oneOf[T ~string](v *T, b []byte, allowed ...T) error {
	if *v = T(b); slices.Contains(allowed, *v) {
		return nil
	}
	words := make([]string, len(allowed))
	for i, a := range allowed {
		words[i] = string(a)
	}
	return fmt.Errorf("%q is not one of %s", b, strings.Join(words, ", "))
}

// check finds what each value alone cannot show; the key is the one at fault.
func (c Config) check() (toml.Key, error) {
	for _, part := range []func() (toml.Key, error){c.checkAddresses, c.checkPaths, c.checkUnits} {
		if key, err := part(); err != nil {
			return key, err
		}
	}
	return nil, nil
}

func (c Config) checkAddresses() (toml.Key, error) {
	for i, a := range c.DNS.Virtual {
		switch {
		case !a.IsGlobalUnicast() || a.Zone() != "" || a.Is4In6():
			return toml.Key{"dns", "virtual"}, fmt.Errorf("%s cannot be a virtual DNS address: a plain unicast address is needed", a)
		case slices.Contains(c.DNS.Virtual[:i], a):
			return toml.Key{"dns", "virtual"}, fmt.Errorf("%s stands there twice", a)
		}
	}
	if slices.Contains(c.DNS.Servers, netip.Addr{}) {
		return toml.Key{"dns", "servers"}, errors.New(`"" is no address`)
	}
	if a := c.Vif.Gateway; a.IsValid() && (!a.Is4() || !a.IsGlobalUnicast()) {
		return toml.Key{"vif", "gateway"}, fmt.Errorf("%s cannot be the vifs' gateway: a unicast IPv4 address is needed", a)
	}
	if a := c.Vif.Gateway6; a.IsValid() && !isGateway6(a) {
		return toml.Key{"vif", "gateway6"}, fmt.Errorf("%s cannot be the vifs' IPv6 gateway: a unicast IPv6 address without a zone is needed", a)
	}
	return nil, nil
}

// isGateway6 allows link-local addresses too: fe80:: is what Qubes itself uses.
func isGateway6(a netip.Addr) bool {
	return a.Is6() && !a.Is4In6() && a.Zone() == "" && (a.IsGlobalUnicast() || a.IsLinkLocalUnicast())
}

func (c Config) checkPaths() (toml.Key, error) {
	for _, p := range []struct {
		key   toml.Key
		value string
	}{
		{toml.Key{"runtime_dir"}, c.RuntimeDir},
		{toml.Key{"state_dir"}, c.StateDir},
		{toml.Key{"dns", "resolv_conf"}, c.DNS.ResolvConf},
		{toml.Key{"store", "qubesdb_socket"}, c.Store.QubesDBSocket},
		{toml.Key{"hooks", "network_hooks_dir"}, c.Hooks.NetworkHooksDir},
		{toml.Key{"hooks", "ip_change_hook"}, c.Hooks.IPChangeHook},
	} {
		if !strings.HasPrefix(p.value, "/") {
			return p.key, fmt.Errorf("%q is not an absolute path", p.value)
		}
	}
	if v := c.Store.XenStorePath; v != "auto" && !strings.HasPrefix(v, "/") {
		return toml.Key{"store", "xenstore_path"}, fmt.Errorf("%q is neither auto nor an absolute path", v)
	}
	return nil, nil
}

func (c Config) checkUnits() (toml.Key, error) {
	for key, units := range map[string][]string{"try_restart_units": c.Hooks.TryRestartUnits, "try_reload_units": c.Hooks.TryReloadUnits} {
		for _, u := range units {
			if !strings.Contains(u, ".") || strings.ContainsAny(u, "/ \t\n") {
				return toml.Key{"hooks", key}, fmt.Errorf("%q is not a unit's name, such as example.service", u)
			}
		}
	}
	return nil, nil
}
