package firewall

import (
	"bufio"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Our chains for DNS. PR-QBS is Qubes' name for the place where DNS is translated.
const (
	chainNAT        = "PR-QBS"
	chainZone       = "QBS-ZONE"
	chainDNSInput   = "QBS-DNS-INPUT"
	chainDNSForward = "QBS-DNS-FORWARD"
)

// drop is the rule that lets nothing pass.
const drop = "-j DROP"

// Matches of link group 2, as iptables-save prints them: it prints the group in hexadecimal.
var (
	fromVifs    = fmt.Sprintf("-m devgroup --src-group 0x%x ", vifGroup)
	notFromVifs = fmt.Sprintf("-m devgroup ! --src-group 0x%x ", vifGroup)
	toVifs      = fmt.Sprintf("-m devgroup --dst-group 0x%x ", vifGroup)
)

// hook is a chain of the kernel's, with the rules that it must begin with: jumps into chains of ours.
type hook struct {
	table, name string
	jumps       []string
}

// hooks are all that we have rules in, in the order in which they are made.
func hooks(base bool) []hook {
	out := []hook{
		{"raw", "PREROUTING", []string{"-j " + chainSpoof, fromVifs + "-j " + chainZone}},
		{"filter", "INPUT", []string{fromVifs + "-j " + chainDNSInput}},
		{"filter", "FORWARD", []string{fromVifs + "-j " + chainDNSForward}},
		{"nat", "PREROUTING", []string{fromVifs + "-j " + chainNAT}},
		{"nat", "POSTROUTING", nil},
	}
	if base {
		for i := range out {
			if to := baseChainOf(out[i]); to != "" {
				out[i].jumps = append(out[i].jumps, "-j "+to)
			}
		}
	}
	return out
}

// alternation is a chain of ours that consists of one jump, to either of two chains: a change fills the spare one and
// replaces the jump, which is one atomic step.
type alternation struct {
	table, parent, a, b string
	render              func(table) []string
}

var (
	dnsChains  = alternation{"nat", chainNAT, "QBS-DNS-A", "QBS-DNS-B", renderNAT}
	zoneChains = alternation{"raw", chainZone, "QBS-ZONE-A", "QBS-ZONE-B", renderZones}
)

// spare is the chain that is not live.
func (a alternation) spare(live string) string {
	if live == a.a {
		return a.b
	}
	return a.a
}

// renderNAT writes the rules of a live chain in nat, as iptables-save prints them. An unserved address cannot be
// rejected there; it is redirected to this machine, which rejects it (see static) without asking for a route.
func renderNAT(t table) []string {
	var out []string
	for _, v4 := range []bool{true, false} {
		for _, v := range t.sorted(v4) {
			target := "-j REDIRECT"
			if t[v].resolver.IsValid() {
				target = "-j DNAT --to-destination " + t[v].resolver.String()
			}
			for _, protocol := range []string{"udp", "tcp"} {
				out = append(out, toDNS(v, protocol)+target)
			}
		}
	}
	return out
}

// renderZones writes the rules of a live chain in raw.
func renderZones(t table) []string {
	var out []string
	for _, v4 := range []bool{true, false} {
		for _, v := range t.sorted(v4) {
			out = append(out, toDNS(v, "udp")+"-j CT --zone-orig "+strconv.Itoa(int(t[v].zone)))
		}
	}
	return out
}

func toDNS(v netip.Addr, protocol string) string {
	return fmt.Sprintf("-d %s -p %s -m %s --dport %d ", netip.PrefixFrom(v, v.BitLen()), protocol, protocol, dnsPort)
}

// staticChain is a chain that never changes.
type staticChain struct {
	table, name string
	rules       []string
}

// dnsGuards are the static chains for DNS. Nobody in the netvm listens on port 53 for AppVMs, so what arrives there was
// redirected for want of a resolver. And NAT leaves alone what conntrack could not make out, so that must not go out.
func (f *iptFamily) dnsGuards() []staticChain {
	prohibited := "icmp-admin-prohibited"
	if !f.v4 {
		prohibited = "icmp6-adm-prohibited"
	}
	udp, tcp := "-p udp -m udp --dport 53 ", "-p tcp -m tcp --dport 53 "
	lost := "-m conntrack --ctstate INVALID,UNTRACKED "
	return []staticChain{
		{"filter", chainDNSInput, []string{udp + "-j REJECT --reject-with " + prohibited, tcp + "-j REJECT --reject-with tcp-reset"}},
		{"filter", chainDNSForward, []string{udp + lost + "-j REJECT --reject-with " + prohibited, tcp + lost + "-j REJECT --reject-with tcp-reset"}},
	}
}

// ruleset is the rules by table and chain, each as iptables-save prints it after "-A CHAIN ". A chain without rules
// is an empty list; one that does not exist is nil.
type ruleset map[string]map[string][]string

// parseSave reads what iptables-save prints.
func parseSave(text string) (ruleset, error) {
	rules := ruleset{}
	var current map[string][]string
	lines := bufio.NewScanner(strings.NewReader(text))
	// A rule may be long: a set of multiport, a comment, a bpf program.
	lines.Buffer(nil, 1<<20)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		kind, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" || strings.HasPrefix(line, "#") || line == "COMMIT":
		case strings.HasPrefix(line, "*"):
			current = map[string][]string{}
			rules[line[1:]] = current
		case current == nil:
			return nil, fmt.Errorf("line %d: %q before any table", number, line)
		case strings.HasPrefix(kind, ":"):
			current[kind[1:]] = []string{}
		case kind == "-A":
			chain, rule, _ := strings.Cut(rest, " ")
			// Some versions print the other of protocol 58's two names.
			rule = strings.Replace(rule, "-p icmpv6 ", "-p ipv6-icmp ", 1)
			if current[chain] == nil {
				return nil, fmt.Errorf("line %d: rule of an unknown chain %q", number, chain)
			}
			current[chain] = append(current[chain], rule)
		default:
			return nil, fmt.Errorf("line %d: %q is neither table, chain nor rule", number, line)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read its output: %w", err)
	}
	return rules, nil
}

// live is the chain that the alternation's one jump leads to, "" if it is not one jump to either.
func (r ruleset) live(alt alternation) string {
	parent := r[alt.table][alt.parent]
	if len(parent) != 1 {
		return ""
	}
	for _, name := range []string{alt.a, alt.b} {
		if parent[0] == "-j "+name && r[alt.table][name] != nil {
			return name
		}
	}
	return ""
}

// parseTargets reads the table out of the live chains. It takes what it knows; whether there was more, shows when
// the table is rendered again.
func parseTargets(nat, zones []string) table {
	t := table{}
	for _, rule := range nat {
		v, target, ok := cutDNSRule(rule)
		if !ok {
			continue
		}
		e := t[v]
		if target == "REDIRECT" {
			e.refused = true
		} else if text, ok := strings.CutPrefix(target, "DNAT --to-destination "); ok {
			if a, err := netip.ParseAddr(text); err == nil {
				e.resolver = a
			}
		}
		t[v] = e
	}
	for _, rule := range zones {
		v, target, ok := cutDNSRule(rule)
		if !ok {
			continue
		}
		text, _ := strings.CutPrefix(target, "CT --zone-orig ")
		if zone, err := strconv.ParseUint(text, 10, 16); err == nil {
			e := t[v]
			e.zone, e.zoned = uint16(zone), true
			t[v] = e
		}
	}
	return t
}

// cutDNSRule splits "-d 10.139.1.1/32 -p udp -m udp --dport 53 -j DNAT …" into the virtual address and the target.
func cutDNSRule(rule string) (v netip.Addr, target string, ok bool) {
	match, target, found := strings.Cut(rule, " -j ")
	fields := strings.Fields(match)
	if !found || len(fields) != 8 || fields[0] != "-d" {
		return netip.Addr{}, "", false
	}
	p, err := netip.ParsePrefix(fields[1])
	if err != nil || !p.IsSingleIP() || match+" " != toDNS(p.Addr(), fields[3]) {
		return netip.Addr{}, "", false
	}
	return p.Addr(), target, true
}
