package dbus

import (
	"fmt"
	"maps"
	"net/netip"

	"netvmd/internal/netvm"
)

// encode turns a status into the values of the properties.
func encode(s netvm.Status) dict {
	return variants(map[string]any{
		"Version":               s.Version,
		"State":                 string(s.State),
		"NetworkManagerRunning": s.NMRunning,
		"Served":                s.Served,
		"PortalUrl":             s.PortalURL,
		"Uplinks":               each(s.Uplinks, encodeUplink),
		"DnsSource":             s.DNSSource,
		"DnsReason":             s.DNSReason,
		"DnsServers": each(s.DNSServers, func(r netvm.Resolver) string {
			return r.Addr.String()
		}),
		"DnsDropped": each(s.DNSDropped, func(d netvm.Dropped) pair {
			return pair{d.Addr.String(), d.Reason}
		}),
		"DnsOverrides": each(s.DNSOverrides, encodeOverride),
		"DnsTargets": each(s.DNSTargets, func(t netvm.Target) pair {
			return pair{t.Virtual.String(), orEmpty(t.Resolver.Addr)}
		}),
		"DnsChangedAt": micros(s.ChangedAt),
		"DnsApplyTime": uint64(s.ApplyTime.Microseconds()),
		"Backend":      s.Backend,
		"Vifs":         each(s.Vifs, encodeVif),
		"Problems":     s.Problems,
	})
}

// younger are the properties that a netvmd of an earlier release lacks, and what stands for them: that NetworkManager does
// not run must not be said of one that does.
var younger = variants(map[string]any{"NetworkManagerRunning": true, "PortalUrl": "", "Served": false})

// decode checks what came over the bus: a value of another type, or an address that is none, is an error that
// names the property.
func decode(values dict) (netvm.Status, error) {
	var s netvm.Status
	var state, portal string
	var servers []string
	var targets, dropped []pair
	var uplinks, vifs, overrides []dict
	var changedAt, applyTime uint64
	all := maps.Clone(younger)
	maps.Copy(all, values)
	err := take(all, map[string]any{
		"Version": &s.Version, "State": &state, "NetworkManagerRunning": &s.NMRunning, "Served": &s.Served, "PortalUrl": &portal,
		"Uplinks": &uplinks, "DnsSource": &s.DNSSource, "DnsReason": &s.DNSReason,
		"DnsServers": &servers, "DnsDropped": &dropped, "DnsOverrides": &overrides, "DnsTargets": &targets,
		"DnsChangedAt": &changedAt, "DnsApplyTime": &applyTime, "Backend": &s.Backend, "Vifs": &vifs, "Problems": &s.Problems,
	})
	if err != nil {
		return s, fmt.Errorf("property %w", err)
	}
	s.State = netvm.State(state)
	for _, property := range []struct {
		name  string
		parse func() error
	}{
		{"PortalUrl", func() (err error) { s.PortalURL, err = decodePortal(portal); return err }},
		{"DnsServers", func() (err error) { s.DNSServers, err = parseEach(servers, decodeResolver); return err }},
		{"DnsDropped", func() (err error) { s.DNSDropped, err = parseEach(dropped, decodeDropped); return err }},
		{"DnsOverrides", func() (err error) { s.DNSOverrides, err = parseEach(overrides, decodeOverride); return err }},
		{"DnsTargets", func() (err error) { s.DNSTargets, err = parseEach(targets, decodeTarget); return err }},
		{"DnsChangedAt", func() (err error) { s.ChangedAt, err = moment(changedAt); return err }},
		{"DnsApplyTime", func() (err error) { s.ApplyTime, err = span(applyTime); return err }},
		{"Uplinks", func() (err error) { s.Uplinks, err = parseEach(uplinks, decodeUplink); return err }},
		{"Vifs", func() (err error) { s.Vifs, err = parseEach(vifs, decodeVif); return err }},
	} {
		if err := property.parse(); err != nil {
			return s, fmt.Errorf("property %s: %w", property.name, err)
		}
	}
	return s, nil
}

// decodePortal checks what a browser may be sent to.
func decodePortal(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	return netvm.ParsePortalURL(text)
}

func decodeResolver(text string) (netvm.Resolver, error) {
	a, err := netip.ParseAddr(text)
	return netvm.Resolver{Addr: a}, err
}

func decodeTarget(p pair) (t netvm.Target, err error) {
	if t.Virtual, err = netip.ParseAddr(p.First); err != nil {
		return t, err
	}
	t.Resolver.Addr, err = parseOrNone(p.Second)
	return t, err
}

func decodeDropped(p pair) (netvm.Dropped, error) {
	a, err := netip.ParseAddr(p.First)
	return netvm.Dropped{Addr: a, Reason: p.Second}, err
}

func encodeOverride(o netvm.Override) dict {
	return variants(map[string]any{
		"servers": each(o.Servers, netip.Addr.String), "persistent": o.Persistent, "by": o.By, "since": micros(o.Since),
	})
}

func decodeOverride(values dict) (netvm.Override, error) {
	var o netvm.Override
	var servers []string
	var since uint64
	err := take(values, map[string]any{"servers": &servers, "persistent": &o.Persistent, "by": &o.By, "since": &since})
	if err != nil {
		return o, err
	}
	if o.Servers, err = parseEach(servers, netip.ParseAddr); err != nil {
		return o, fmt.Errorf("servers: %w", err)
	}
	if o.Since, err = moment(since); err != nil {
		return o, fmt.Errorf("since: %w", err)
	}
	return o, nil
}

func encodeUplink(u netvm.Uplink) dict {
	return variants(map[string]any{
		"id": u.ID, "type": u.Type, "interface": u.Interface, "ssid": u.SSID, "strength": u.Strength,
		"addresses": each(u.Addresses, netip.Prefix.String), "gateway": orEmpty(u.Gateway), "vpn": u.VPN, "metered": u.Metered,
	})
}

func decodeUplink(values dict) (netvm.Uplink, error) {
	var u netvm.Uplink
	var addresses []string
	var gateway string
	err := take(values, map[string]any{
		"id": &u.ID, "type": &u.Type, "interface": &u.Interface, "ssid": &u.SSID, "strength": &u.Strength,
		"addresses": &addresses, "gateway": &gateway, "vpn": &u.VPN, "metered": &u.Metered,
	})
	if err != nil {
		return u, err
	}
	if u.Addresses, err = parseEach(addresses, netip.ParsePrefix); err != nil {
		return u, fmt.Errorf("addresses: %w", err)
	}
	if u.Gateway, err = parseOrNone(gateway); err != nil {
		return u, fmt.Errorf("gateway: %w", err)
	}
	return u, nil
}
