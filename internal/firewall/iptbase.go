package firewall

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Chains of the base firewall. None is called QBS-FORWARD: that is the chain in which the scripts of Qubes before
// nftables keep the firewalls of AppVMs.
const (
	chainBaseInput       = "QBS-BASE-INPUT"
	chainBaseForward     = "QBS-BASE-FORWARD"
	chainBasePrerouting  = "QBS-BASE-PREROUTING"
	chainBasePostrouting = "QBS-BASE-POSTROUTING"
)

// The admin's chains. They are made when the base firewall is loaded, and never emptied or deleted.
const (
	customInput   = "custom-input"
	customForward = "custom-forward"
	customDNAT    = "custom-dnat"
)

// customChains says which table each is in.
var customChains = []struct{ table, name string }{
	{"filter", customInput}, {"filter", customForward}, {"nat", customDNAT},
}

// baseChainOf is the base chain that a chain of the kernel's jumps to, "" for none.
func baseChainOf(h hook) string {
	switch h.table + " " + h.name {
	case "filter INPUT":
		return chainBaseInput
	case "filter FORWARD":
		return chainBaseForward
	case "nat PREROUTING":
		return chainBasePrerouting
	case "nat POSTROUTING":
		return chainBasePostrouting
	}
	return ""
}

// baseChains are the chains of the base firewall, each after those that it jumps to.
func (f *iptFamily) baseChains() []staticChain {
	return []staticChain{
		{"filter", chainBaseInput, slices.Concat(
			[]string{
				"-j " + customInput,
				"-m conntrack --ctstate INVALID -j DROP",
				"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
				"-i lo -j ACCEPT",
			},
			f.fromAppVMs(), f.fromUplinks(), []string{drop},
		)},
		{"filter", chainBaseForward, []string{
			"-j " + customForward,
			"-m conntrack --ctstate INVALID -j DROP",
			"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
			notFromVifs + drop,
			toVifs + drop,
		}},
		{"nat", chainBasePrerouting, []string{"-j " + customDNAT}},
		{"nat", chainBasePostrouting, []string{toVifs + "-j ACCEPT", "-o lo -j ACCEPT", "-j MASQUERADE"}},
	}
}

// fromAppVMs is what an AppVM may send to the netvm itself: it may ping it, and ask for its link-layer address.
func (f *iptFamily) fromAppVMs() []string {
	if f.v4 {
		return []string{
			"-p icmp " + fromVifs + "-m icmp --icmp-type 8 -j ACCEPT",
			fromVifs + "-j REJECT --reject-with icmp-host-prohibited",
		}
	}
	return []string{
		"-p ipv6-icmp " + fromVifs + "-m icmp6 --icmpv6-type 128 -j ACCEPT",
		"-p ipv6-icmp " + fromVifs + "-m icmp6 --icmpv6-type 135 -j ACCEPT",
		fromVifs + "-j REJECT --reject-with icmp6-adm-prohibited",
	}
}

// fromUplinks is what a host must hear that it did not ask for, as far as conntrack can tell: answers to the broadcasts
// and multicasts of DHCP (RFC 2131, 4.4.5; RFC 8415, 7.1), and neighbours and routers.
func (f *iptFamily) fromUplinks() []string {
	if f.v4 {
		return []string{"-p udp -m udp --sport 67 --dport 68 -j ACCEPT"}
	}
	return []string{"-p ipv6-icmp -j ACCEPT", "-s fe80::/10 -d fe80::/10 -p udp -m udp --dport 546 -j ACCEPT"}
}

// static are all chains that never change, each after those that it jumps to.
func (f *iptFamily) static(base bool) []staticChain {
	if !base {
		return f.dnsGuards()
	}
	return slices.Concat(f.dnsGuards(), f.baseChains())
}

// wantsBase tells whether the family is to have the base firewall.
func (b *iptBackend) wantsBase(ctx context.Context, f *iptFamily, rules ruleset) (bool, error) {
	switch b.base {
	case always:
		return true, nil
	case never:
		return false, nil
	}
	theirs, err := b.qubesBase(ctx, f, rules)
	return !theirs, err
}

// qubesBase tells whether the base firewall of Qubes is loaded: in nftables, or that of the times before.
func (b *iptBackend) qubesBase(ctx context.Context, f *iptFamily, rules ruleset) (bool, error) {
	// The scripts of Qubes before nftables jump to their chain for every packet. We have none of that name.
	if slices.Contains(rules["filter"]["FORWARD"], "-j QBS-FORWARD") {
		return true, nil
	}
	family := byte(unix.NFPROTO_IPV4)
	if !f.v4 {
		family = unix.NFPROTO_IPV6
	}
	chains, err := b.nft.get(ctx, family, unix.NFT_MSG_GETCHAIN, true)
	if noNFTables(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("iptables: look for the base firewall of Qubes: %w", err)
	}
	missing := map[string]bool{"input": true, "forward": true, "postrouting": true}
	for _, c := range chains {
		if nulTerminated(c[unix.NFTA_CHAIN_TABLE]) == qubesTable {
			delete(missing, nulTerminated(c[unix.NFTA_CHAIN_NAME]))
		}
	}
	return len(missing) == 0, nil
}
