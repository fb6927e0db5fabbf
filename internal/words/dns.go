package words

import (
	"cmp"
	"fmt"
	"strings"

	"netvmd/internal/netvm"
)

// Refused is what becomes of queries to an address without a resolver.
const Refused = "refused at once"

// Led says where queries to an address go.
func Led(t netvm.Target) string {
	if !t.Served() {
		return Refused
	}
	return t.Resolver.Addr.String()
}

// Service says how far AppVM DNS is served.
type Service int

// How far AppVM DNS is served.
const (
	Unled        Service = iota // there is no virtual address yet
	Unserved                    // queries to every virtual address are refused
	PartlyServed                // queries to some are
	Served
)

// AppVMDNS says how far AppVM DNS is served, and that in a sentence.
func AppVMDNS(s netvm.Status) (Service, string) {
	var without []string
	for _, t := range s.DNSTargets {
		if !t.Served() {
			without = append(without, t.Virtual.String())
		}
	}
	switch {
	case len(s.DNSTargets) == 0:
		return Unled, "AppVM DNS is not led anywhere yet."
	case len(without) == len(s.DNSTargets):
		return Unserved, "AppVM DNS is refused."
	case len(without) > 0:
		return PartlyServed, "AppVM DNS is refused on " + strings.Join(without, ", ") + "."
	case s.DNSSource == "override":
		return Served, "AppVM DNS is served by an override."
	}
	return Served, "AppVM DNS is served."
}

// sources are the words for DnsSource.
var sources = map[string]string{
	"override": "an override", "config": "dns.servers in the configuration", "resolved": "systemd-resolved",
	"resolv.conf": "resolv.conf", "networkmanager": "NetworkManager", "store": "the netvm above",
}

// Source names where resolvers come from.
func Source(s string) string { return cmp.Or(sources[s], s, "nowhere") }

// Holding says whose an override is, since when (a Stamp or Moment), and for how long.
func Holding(o netvm.Override, since string) string {
	ends := "until its caller ends"
	if o.Persistent {
		ends = "persistent"
	}
	return fmt.Sprintf("set by %s, since %s, %s", o.By, since, ends)
}
