// Package plan decides which resolver every virtual DNS address leads to, and says why. It is pure: no I/O, no
// clock, the same inputs give the same decision.
package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"netvmd/internal/netvm"
)

// Inputs is everything the decision depends on.
type Inputs struct {
	View       netvm.View
	Virtual    []netip.Addr   // the virtual DNS addresses, in order, IPv4 and IPv6 mixed
	Override   netvm.Override // the one in force; without servers = there is none
	Configured []netip.Addr   // dns.servers of the configuration; empty = take them from a source
	Source     string         // dns.source of the configuration: one of the Source constants, "" = Auto
	Own        []netip.Addr   // the netvm's own addresses
	// PassThrough: this netvm's uplink is served by another netvm, so that a virtual address is itself a
	// resolver, of the netvm above.
	PassThrough bool
	// Above are the nameservers that the netvm above gives this one; empty where none serves it.
	Above []netip.Addr
}

// Decision is where every virtual address leads, and why.
type Decision struct {
	Source  string // one of the Source constants, never Auto
	Reason  string // one sentence
	Servers []netvm.Resolver
	Dropped []netvm.Dropped
	Targets []netvm.Target // one for each of Inputs.Virtual, in that order
	// Problems are sentences for the user: what is wrong and what to do.
	Problems []string
}

// Decide chooses the source of resolvers, drops those that must not be used, and spreads the rest over the
// virtual addresses: number i of a family goes to usable resolver i mod n of that family.
func Decide(in Inputs) Decision {
	d := choose(in)
	announced := len(d.Servers)
	d.Servers, d.Dropped = usable(d.Servers, in)
	d.Targets = spread(in.Virtual, d.Servers)
	d.Problems = problems(d, in, announced)
	return d
}

// spread maps every virtual address to a resolver of its family, or to none.
func spread(virtual []netip.Addr, servers []netvm.Resolver) []netvm.Target {
	v4, v6 := byFamily(servers)
	targets := make([]netvm.Target, 0, len(virtual))
	var next4, next6 int
	for _, v := range virtual {
		t := netvm.Target{Virtual: v}
		switch {
		case v.Is4() && len(v4) > 0:
			t.Resolver = v4[next4%len(v4)]
			next4++
		case !v.Is4() && len(v6) > 0:
			t.Resolver = v6[next6%len(v6)]
			next6++
		}
		targets = append(targets, t)
	}
	return targets
}

func byFamily(servers []netvm.Resolver) (v4, v6 []netvm.Resolver) {
	for _, s := range servers {
		if s.Addr.Is4() {
			v4 = append(v4, s)
		} else {
			v6 = append(v6, s)
		}
	}
	return v4, v6
}

// problems names what a user would notice. An unserved address is no problem while there is no uplink at all:
// then being offline is what is wrong.
func problems(d Decision, in Inputs, announced int) []string {
	if state, _ := in.View.WayOut(); state == netvm.Offline && announced == 0 {
		return nil
	}
	unserved := slices.DeleteFunc(slices.Clone(d.Targets), netvm.Target.Served)
	if len(unserved) == 0 {
		return nil
	}
	families := map[bool]string{true: "IPv4", false: "IPv6"}
	var out []string
	for _, is4 := range []bool{true, false} {
		of := slices.DeleteFunc(slices.Clone(unserved), func(t netvm.Target) bool { return t.Virtual.Is4() != is4 })
		if len(of) == 0 {
			continue
		}
		out = append(out, fmt.Sprintf("AppVM DNS over %s is refused: %s. %s.", families[is4], missing(d, announced),
			remedy(d.Source, in.Override)))
	}
	return out
}

func missing(d Decision, announced int) string {
	switch {
	case announced == 0:
		return "no resolver is announced (source: " + d.Source + ")"
	case len(d.Servers) == 0:
		return fmt.Sprintf("none of the %d announced resolvers can be used (source: %s; the first, %s, is %s)",
			announced, d.Source, d.Dropped[0].Addr, d.Dropped[0].Reason)
	case d.Source == Override:
		return "the override's usable servers are all of the other family, and no query may pass by them"
	default:
		return "the usable resolvers are all of the other family (source: " + d.Source + ")"
	}
}

// remedy is what the user can do about a source without a usable resolver.
func remedy(source string, o netvm.Override) string {
	switch {
	case source == Override && o.Persistent:
		return "Set other servers with `netvmctl dns set --persistent`, or end the override with `netvmctl dns clear`"
	case source == Override:
		return fmt.Sprintf("Have %s set other servers, or end it", o.By)
	case source == Config:
		return "Set other servers in dns.servers in netvmd.toml, or none there"
	default:
		return "Set the network's DNS servers in NetworkManager, or dns.servers in netvmd.toml"
	}
}
