package firewall

import (
	"strings"

	"netvmd/internal/netvm"
)

// reason is what the packets of a counter were stopped for.
type reason int

const (
	unknownReason reason = iota
	harmless             // what every guest's own IPv6 says whenever its link comes up
	spoofing
	noResolver
	toNetvm
	toOthers // than the netvm
)

// reasons are those of the counters in netvmd.nft and base.nft, and of our chains of iptables.
var reasons = map[string]reason{
	"link-local":        harmless,
	"spoofed":           spoofing,
	"spoofed-neighbour": spoofing,
	"spoofed-uplink":    spoofing,
	"dns-refused-udp":   noResolver,
	"dns-refused-tcp":   noResolver,
	"dns-untracked":     toOthers,
	"input-invalid":     toNetvm,
	"input-rejected":    toNetvm,
	"input-dropped":     toNetvm,
	"forward-invalid":   toOthers,
	"forward-closed":    toOthers,

	chainSpoof:       spoofing,
	chainAllowed:     spoofing,
	chainDNSInput:    noResolver, // it gets what was redirected for want of a resolver
	chainDNSForward:  toOthers,
	chainBaseInput:   toNetvm,
	chainBaseForward: toOthers,

	chainAllowed + " " + unspecifiedSource: harmless,
	chainAllowed + " " + linkLocalSource:   harmless,
}

// reasonOf knows the counter of nftables by its name and that of a rule of iptables by the rule, else by its chain.
func reasonOf(name string) reason {
	if r := reasons[name]; r != unknownReason {
		return r
	}
	chain, _, _ := strings.Cut(name, " ")
	return reasons[chain]
}

// Tally sums the packets of Counters up by what they were stopped for; the traffic stays empty.
func Tally(counters []netvm.Counter) netvm.Tally {
	t := netvm.Tally{Counters: counters}
	for _, c := range counters {
		switch reasonOf(c.Name) {
		case spoofing:
			t.Spoofed += c.Packets
		case noResolver:
			t.Unserved += c.Packets
		case toNetvm:
			t.InputRejected += c.Packets
		case toOthers:
			t.ForwardRejected += c.Packets
		case harmless, unknownReason: // an unknown one was left by another version: it shows among the counters
		}
	}
	return t
}
