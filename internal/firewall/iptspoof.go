package firewall

import (
	"net/netip"
	"slices"
	"strings"

	"netvmd/internal/netvm"
)

// Our chains against spoofing, in raw, where a packet is seen before conntrack sees it.
const (
	// chainSpoof sends what comes from a vif to chainAllowed. From elsewhere it drops what has the address of a vif.
	chainSpoof = "QBS-SPOOF"
	// chainAllowed lets what a vif may send return to PREROUTING, and drops the rest.
	chainAllowed = "QBS-ALLOWED"
)

// toAllowed goes instead of jumping: what returns from there has passed chainSpoof too.
var toAllowed = fromVifs + "-g " + chainAllowed

// allowedTail ends chainAllowed. What a guest's own IPv6 says of itself (it looks for duplicates of its address, for
// routers, for listeners) is no spoofing: it is dropped by rules, and so counters, of its own.
func (f *iptFamily) allowedTail() []string {
	if f.v4 {
		return []string{drop}
	}
	return []string{"-s ::/128 " + drop, "-s fe80::/10 " + drop, drop}
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
	allowed, guarded, missing := []string{}, []string{toAllowed}, map[string]bool{}
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
		{"raw", chainAllowed, append(allowed, f.allowedTail()...)},
		{"raw", chainSpoof, guarded},
	}
}

// admissionsOf gives the admissions of one address family.
func admissionsOf(v4 bool, all []netvm.Admission) []netvm.Admission {
	return slices.DeleteFunc(slices.Clone(all), func(a netvm.Admission) bool { return a.Addr.Is4() != v4 })
}
