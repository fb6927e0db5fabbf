// Package dbus is the daemon's face on the system bus: org.qubes_os.NetVM1. It holds the contract (the XML), the
// service that shows a status, and a typed client.
package dbus

import (
	"context"
	_ "embed"
	"net/netip"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
)

// The names of the contract.
const (
	Name      = "org.qubes_os.NetVM1"
	Interface = "org.qubes_os.NetVM1"
	Path      = godbus.ObjectPath("/org/qubes_os/NetVM1")
)

const (
	properties        = "org.freedesktop.DBus.Properties"
	propertiesChanged = "PropertiesChanged"
	targetsChanged    = "DnsTargetsChanged"
	vifAdded          = "VifAdded"
	vifRemoved        = "VifRemoved"
)

// Contract is the introspection XML that the service answers with.
//
//go:embed org.qubes_os.NetVM1.xml
var Contract string

// callDeadline bounds every call on the bus.
const callDeadline = 5 * time.Second

// Daemon is what callers may ask of netvmd beside its status. Each call ends with ctx.
type Daemon interface {
	// Refresh reads every source again and brings the kernel to what they say; changed tells whether anything was written.
	Refresh(ctx context.Context) (changed bool, err error)
	// SetOverride puts an override in force; it returns when the kernel has it. A server that can be no resolver is a
	// netvm.InvalidError, and nothing was changed.
	SetOverride(ctx context.Context, o netvm.Override) error
	// ClearOverride takes the holder's override back or, if it has none, the persistent one.
	ClearOverride(ctx context.Context, holder string) error
	// Holders are the bus names whose leaving ends an override, those of before a restart of netvmd too.
	Holders() []string
	// Left says that a holder has left the bus.
	Left(holder string)
	// Routes lists the main IPv4 routing table, Tally what the kernel counted.
	Routes(ctx context.Context) ([]netvm.Route, error)
	Tally(ctx context.Context) (netvm.Tally, error)
}

// target is the wire form of netvm.Target, and of netvm.Dropped: (ss).
type target struct{ Virtual, Resolver string }

// encode turns a status into the values of the properties.
func encode(s netvm.Status) map[string]godbus.Variant {
	uplinks := make([]map[string]godbus.Variant, len(s.Uplinks))
	for i, u := range s.Uplinks {
		addresses := make([]string, len(u.Addresses))
		for j, a := range u.Addresses {
			addresses[j] = a.String()
		}
		uplinks[i] = map[string]godbus.Variant{
			"id": godbus.MakeVariant(u.ID), "type": godbus.MakeVariant(u.Type),
			"interface": godbus.MakeVariant(u.Interface), "ssid": godbus.MakeVariant(u.SSID),
			"strength": godbus.MakeVariant(u.Strength), "addresses": godbus.MakeVariant(addresses),
			"gateway": godbus.MakeVariant(orEmpty(u.Gateway)), "vpn": godbus.MakeVariant(u.VPN),
			"metered": godbus.MakeVariant(u.Metered),
		}
	}
	servers := make([]string, len(s.DNSServers))
	for i, r := range s.DNSServers {
		servers[i] = r.Addr.String()
	}
	problems := append([]string{}, s.Problems...)
	return map[string]godbus.Variant{
		"Version":      godbus.MakeVariant(s.Version),
		"State":        godbus.MakeVariant(string(s.State)),
		"Uplinks":      godbus.MakeVariant(uplinks),
		"DnsSource":    godbus.MakeVariant(s.DNSSource),
		"DnsReason":    godbus.MakeVariant(s.DNSReason),
		"DnsServers":   godbus.MakeVariant(servers),
		"DnsTargets":   godbus.MakeVariant(encodeTargets(s.DNSTargets)),
		"DnsChangedAt": godbus.MakeVariant(micros(s.ChangedAt)),
		"DnsApplyTime": godbus.MakeVariant(uint64(s.ApplyTime.Microseconds())),
		"Backend":      godbus.MakeVariant(s.Backend),
		"Vifs":         godbus.MakeVariant(encodeVifs(s.Vifs)),
		"Problems":     godbus.MakeVariant(problems),
	}
}

func encodeTargets(targets []netvm.Target) []target {
	out := make([]target, len(targets))
	for i, t := range targets {
		out[i] = target{t.Virtual.String(), orEmpty(t.Resolver.Addr)}
	}
	return out
}

func encodeStatistics(s netvm.Statistics) map[string]godbus.Variant {
	return map[string]godbus.Variant{
		"applies":   godbus.MakeVariant(s.Applies),
		"coalesced": godbus.MakeVariant(s.Coalesced),
		"restored":  godbus.MakeVariant(s.Restored),
	}
}

func orEmpty(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func micros(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixMicro())
}
