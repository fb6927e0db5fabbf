package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"netvmd/internal/netvm"
)

// Our chains against spoofing, in raw, where a packet is seen before conntrack sees it.
const (
	// chainSpoof sends what comes from a vif to chainAllowed. From elsewhere it drops what has the address of a vif.
	chainSpoof = "QBS-SPOOF"
	// chainAllowed lets what a vif may send return to PREROUTING, and drops the rest. The newest comes first.
	chainAllowed = "QBS-ALLOWED"
)

// toAllowed goes instead of jumping: what returns from there has passed chainSpoof too.
var toAllowed = fromVifs + "-g " + chainAllowed

// Rules about what a guest's own IPv6 says of itself.
const (
	unspecifiedSource = "-s ::/128 " + drop
	linkLocalSource   = "-s fe80::/10 " + drop
)

// neverAllowed begins chainAllowed. What a guest's own IPv6 says of itself (it looks for duplicates of its address, for
// routers, for listeners) is no spoofing; it is dropped by rules, and so counters, of its own. And no guest is a router
// or, as its own address is permanent here, a neighbour that has to introduce itself.
func (f *iptFamily) neverAllowed() []string {
	if f.v4 {
		return nil
	}
	out := []string{unspecifiedSource, linkLocalSource}
	for _, kind := range []int{133, 134, 136, 137} { // RFC 4861, 4: solicitation of routers, advertisements, redirect
		out = append(out, fmt.Sprintf("-p ipv6-icmp -m icmp6 --icmpv6-type %d %s", kind, drop))
	}
	return out
}

// allowRule lets a vif send from an address.
func allowRule(a netvm.Admission) string {
	return "-s " + single(a.Addr) + " -i " + a.Vif + " -j RETURN"
}

// guardRule drops what has the address and does not come from a vif.
func guardRule(a netip.Addr) string { return "-s " + single(a) + " " + drop }

// single is the address as iptables-save prints it.
func single(a netip.Addr) string { return netip.PrefixFrom(a, a.BitLen()).String() }

// parseAdmissions reads who may send from where out of chainAllowed, in its order. Of two rules for one address, the
// first counts: the newest is written in front.
func parseAdmissions(rules []string) []netvm.Admission {
	var out []netvm.Admission
	seen := map[netip.Addr]bool{}
	for _, rule := range rules {
		fields := strings.Fields(rule)
		if len(fields) != 6 || fields[0] != "-s" {
			continue
		}
		p, err := netip.ParsePrefix(fields[1])
		a := netvm.Admission{Addr: p.Addr(), Vif: fields[3]}
		if err == nil && rule == allowRule(a) && checkAdmission(a) == nil && !seen[a.Addr] {
			seen[a.Addr] = true
			out = append(out, a)
		}
	}
	return out
}

// spoofChains are the two chains as they must be for these admissions. What is in chainSpoof already keeps its order.
func (f *iptFamily) spoofChains(admitted []netvm.Admission, now []string) []staticChain {
	allowed, guarded, missing := f.neverAllowed(), []string{toAllowed}, map[string]bool{}
	for _, a := range admitted {
		allowed = append(allowed, allowRule(a))
		missing[guardRule(a.Addr)] = true
	}
	for _, rule := range now {
		if missing[rule] {
			guarded = append(guarded, rule)
			delete(missing, rule)
		}
	}
	for _, a := range admitted {
		if rule := guardRule(a.Addr); missing[rule] {
			guarded = append(guarded, rule)
		}
	}
	return []staticChain{
		{"raw", chainAllowed, append(allowed, drop)},
		{"raw", chainSpoof, guarded},
	}
}

// admissionsOf gives the admissions of one address family.
func admissionsOf(v4 bool, all []netvm.Admission) []netvm.Admission {
	return slices.DeleteFunc(slices.Clone(all), func(a netvm.Admission) bool { return a.Addr.Is4() != v4 })
}
