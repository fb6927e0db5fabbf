package firewall

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

// hidingTable is the one table of a vif's own network namespace.
const hidingTable = "netvmd-hidden"

// Hide lets the AppVM behind a network namespace see itself under another address than everybody else: it loads the
// rules of that namespace, in one transaction, in place of any that were there. This needs nf_tables, whatever the
// backend is; ICMP errors are translated too, with the packet that they quote, so a refused query is refused at once.
func Hide(ctx context.Context, namespace int, h netvm.Hiding) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, a := range []netip.Addr{h.Real, h.Visible, h.Gateway, h.VisibleGateway} {
		if !a.Is4() {
			return fmt.Errorf("hide %s behind %s: %q is no IPv4 address", h.Visible, h.Real, a)
		}
	}
	conn, err := nftables.New(nftables.WithNetNSFd(namespace))
	if err != nil {
		return fmt.Errorf("hide %s behind %s: open a netlink socket: %w", h.Visible, h.Real, err)
	}
	table := &nftables.Table{Name: hidingTable, Family: nftables.TableFamilyIPv4}
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	addHidingRules(conn, table, h)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("hide %s behind %s: load the rules (the kernel needs nf_tables with NAT): %w", h.Visible, h.Real, err)
	}
	return nil
}

// addHidingRules writes, in nft's words:
//
//	chain antispoof: iifname INNER ip saddr != VISIBLE drop
//	chain input: policy drop
//	chain dnat: iifname OUTER dnat to VISIBLE; iifname INNER ip daddr VISIBLE-GATEWAY dnat to GATEWAY
//	chain snat: oifname OUTER snat to REAL; oifname INNER ip saddr GATEWAY snat to VISIBLE-GATEWAY
func addHidingRules(conn *nftables.Conn, table *nftables.Table, h netvm.Hiding) {
	const sourceOffset, destinationOffset = 12, 16 // in the IPv4 header (RFC 791, 3.1)
	closed := nftables.ChainPolicyDrop
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority, policy *nftables.ChainPolicy) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: priority, Policy: policy})
	}
	rule := func(c *nftables.Chain, parts ...[]expr.Any) {
		var all []expr.Any
		for _, p := range parts {
			all = append(all, p...)
		}
		conn.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: all})
	}
	antispoof := chain("antispoof", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, nil)
	rule(antispoof, incoming(h.Inner), addressIs(expr.CmpOpNeq, sourceOffset, h.Visible), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})
	chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter, &closed)
	dnat := chain("dnat", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, nil)
	rule(dnat, incoming(h.Outer), translate(expr.NATTypeDestNAT, h.Visible))
	rule(dnat, incoming(h.Inner), addressIs(expr.CmpOpEq, destinationOffset, h.VisibleGateway), translate(expr.NATTypeDestNAT, h.Gateway))
	snat := chain("snat", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, nil)
	rule(snat, outgoing(h.Outer), translate(expr.NATTypeSourceNAT, h.Real))
	rule(snat, outgoing(h.Inner), addressIs(expr.CmpOpEq, sourceOffset, h.Gateway), translate(expr.NATTypeSourceNAT, h.VisibleGateway))
}

func incoming(device string) []expr.Any { return deviceIs(expr.MetaKeyIIFNAME, device) }

func outgoing(device string) []expr.Any { return deviceIs(expr.MetaKeyOIFNAME, device) }

func deviceIs(key expr.MetaKey, device string) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, device)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name}}
}

func addressIs(op expr.CmpOp, offset uint32, a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4, DestRegister: 1},
		&expr.Cmp{Op: op, Register: 1, Data: a.AsSlice()},
	}
}

func translate(kind expr.NATType, a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: a.AsSlice()},
		&expr.NAT{Type: kind, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegAddrMax: 1},
	}
}
