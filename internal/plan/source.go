package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"netvmd/internal/netvm"
)

// Where resolvers come from. The strings are those of dns.source in netvmd.toml and of the D-Bus property
// DnsSource; Store is not chosen, but what is left.
const (
	Auto           = "auto"
	Override       = "override"
	Config         = "config"
	Resolved       = "resolved"
	ResolvConf     = "resolv.conf"
	NetworkManager = "networkmanager"
	Store          = "store"
)

// choose picks the source and returns its resolvers, not filtered yet.
func choose(in Inputs) Decision {
	v := in.View
	if len(in.Override.Servers) > 0 {
		return Decision{Source: Override, Reason: whose(in.Override), Servers: plain(in.Override.Servers)}
	}
	if len(in.Configured) > 0 {
		return Decision{Source: Config, Reason: "dns.servers is set in the configuration", Servers: plain(in.Configured)}
	}
	switch in.Source {
	case Resolved:
		return fromResolved(v, "dns.source asks for systemd-resolved")
	case ResolvConf:
		return fromFile(v, "dns.source asks for "+v.ResolvConf.Path)
	case NetworkManager:
		return fromNetworkManager(v, "dns.source asks for NetworkManager")
	}
	switch {
	case v.Resolved.Running:
		return fromResolved(v, "systemd-resolved is running")
	case v.ResolvConf.Owner == netvm.ResolvConfOther && len(v.ResolvConf.Servers) > 0:
		return fromFile(v, v.ResolvConf.Path+" was written by another program than NetworkManager and systemd-resolved")
	case len(in.Above) > 0 && (!v.NetworkManager.Running || !announces(v.NetworkManager.Entries)):
		return fromStore(in)
	default:
		return fromNetworkManager(v, "neither systemd-resolved nor another program's resolv.conf takes precedence")
	}
}

// whose tells who set an override, and when it ends.
func whose(o netvm.Override) string {
	if o.Persistent {
		return "set over D-Bus by " + o.By + ", persistently"
	}
	return "set over D-Bus by " + o.By + ", until it leaves the bus"
}

// fromResolved takes the global servers alone where there are any, else those of the links: mixing the two sends
// the queries of one VPN's users to another network's servers.
func fromResolved(v netvm.View, why string) Decision {
	d := Decision{Source: Resolved, Reason: why}
	if !v.Resolved.Running {
		d.Reason += "; it is not running"
	}
	var links []netvm.Resolver
	for _, s := range v.Resolved.Servers {
		if s.Link == 0 {
			d.Servers = append(d.Servers, s.Resolver)
		} else {
			links = append(links, s.Resolver)
		}
	}
	switch {
	case len(d.Servers) > 0 && len(links) > 0:
		d.Reason += "; its global servers exclude those of links"
	case len(d.Servers) == 0:
		d.Servers = links
	}
	return d
}

func fromFile(v netvm.View, why string) Decision {
	d := Decision{Source: ResolvConf, Reason: why, Servers: plain(v.ResolvConf.Servers)}
	if v.ResolvConf.Owner == netvm.ResolvConfAbsent {
		d.Reason += "; the file is not there"
	}
	return d
}

// fromNetworkManager takes the entries in NetworkManager's own order. Where the best priority is negative, only
// entries of just that priority count: this is how a VPN claims all DNS for itself (nm-settings, dns-priority).
func fromNetworkManager(v netvm.View, why string) Decision {
	d := Decision{Source: NetworkManager, Reason: why}
	if !v.NetworkManager.Running {
		d.Reason += "; it is not running, its last word counts"
	}
	best := int32(0)
	for _, e := range v.NetworkManager.Entries {
		best = min(best, e.Priority)
	}
	excluded := false
	for _, e := range v.NetworkManager.Entries {
		if best < 0 && e.Priority != best {
			excluded = true
			continue
		}
		for _, a := range e.Servers {
			d.Servers = append(d.Servers, netvm.Resolver{Addr: a, Interface: e.Interface})
		}
	}
	if excluded {
		d.Reason += fmt.Sprintf("; the negative dns-priority %d excludes the other entries", best)
	}
	return d
}

// announces tells whether NetworkManager knows a resolver.
func announces(entries []netvm.DNSEntry) bool {
	return slices.ContainsFunc(entries, func(e netvm.DNSEntry) bool { return len(e.Servers) > 0 })
}

// fromStore takes what the netvm above gives this one, as long as there is a way to it: over a link that does not carry a
// query would wait for an answer in vain.
func fromStore(in Inputs) Decision {
	d := Decision{Source: Store, Reason: "another netvm serves this one, and nobody here names other resolvers"}
	if in.View.Chained.State == netvm.Offline {
		d.Reason += "; there is no link to it now"
		return d
	}
	d.Servers = plain(in.Above)
	return d
}

func plain(addrs []netip.Addr) []netvm.Resolver {
	out := make([]netvm.Resolver, len(addrs))
	for i, a := range addrs {
		out[i] = netvm.Resolver{Addr: a}
	}
	return out
}
