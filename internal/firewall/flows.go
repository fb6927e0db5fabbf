package firewall

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Attributes of conntrack messages that no library names (linux/netfilter/nfnetlink_conntrack.h), and what the flags
// of CTA_FILTER_ORIG_FLAGS mean (net/netfilter/nf_internals.h: CTA_FILTER_F_CTA_PROTO_NUM
// and …_DST_PORT).
const (
	ctaFilter          = 25
	ctaFilterOrigFlags = 1
	filterProtocol     = 1 << 3
	filterPort         = 1 << 5
)

// flow is a conntrack entry: the packets of the one who began it, and those that come back.
type flow struct{ there, back tuple }

// find lists the flows of a family that are wanted, as the kernel's messages about them. Kernels from 5.8 on look for
// what the filter names themselves, so that a machine with many other flows is not asked for all of them; older ones
// ignore it.
func (c *Conntrack) find(ctx context.Context, family uint8, filter []*nl.RtAttr, wanted func(flow) bool) ([][]byte, error) {
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var found [][]byte
		var broken error
		request := c.request(family, nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
		for _, attribute := range filter {
			request.AddData(attribute)
		}
		err := request.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(message []byte) bool {
			f, err := decodeFlow(message)
			if err != nil {
				broken = err
				return false
			}
			if wanted(f) {
				found = append(found, bytes.Clone(message)) // the buffer that it lies in is a large one
			}
			return true
		})
		if errors.Is(err, netlink.ErrDumpInterrupted) && attempt < dumpAttempts {
			continue
		}
		return found, errors.Join(err, broken)
	}
}

// forgetAll deletes flows, and returns how many were still there.
func (c *Conntrack) forgetAll(ctx context.Context, messages [][]byte) (int, error) {
	total := 0
	for _, message := range messages {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		gone, err := c.forget(message)
		if err != nil {
			return total, err
		}
		if gone {
			total++
		}
	}
	return total, nil
}

// forget deletes the flow that a message tells of; false = it has ended by itself.
func (c *Conntrack) forget(message []byte) (bool, error) {
	request := c.request(message[0], nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
	request.AddRawData(message[nfgenmsgLength:]) // with its zone and its id, so that it is this flow and no other
	_, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

func (c *Conntrack) request(family uint8, what, flags int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|what, flags)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: c.socket}}
	r.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	return r
}

// toDNSPort asks for flows of the protocol to the DNS port alone.
func toDNSPort(protocol uint8) []*nl.RtAttr {
	tuple := nl.NewRtAttr(nl.CTA_TUPLE_ORIG|unix.NLA_F_NESTED, nil)
	proto := tuple.AddRtAttr(nl.CTA_TUPLE_PROTO|unix.NLA_F_NESTED, nil)
	proto.AddRtAttr(nl.CTA_PROTO_NUM, []byte{protocol})
	proto.AddRtAttr(nl.CTA_PROTO_DST_PORT, binary.BigEndian.AppendUint16(nil, dnsPort))
	filter := nl.NewRtAttr(ctaFilter|unix.NLA_F_NESTED, nil)
	filter.AddRtAttr(ctaFilterOrigFlags, binary.NativeEndian.AppendUint32(nil, filterProtocol|filterPort))
	return []*nl.RtAttr{tuple, filter}
}

// flowList is the kernel's list of flows as text, where it has one (CONFIG_NF_CONNTRACK_PROCFS), of the network
// namespace of the calling thread.
const flowList = "/proc/thread-self/net/nf_conntrack"

// senders leaves out the addresses that send in no flow, if the kernel has its list as text: a list over netlink locks
// each bucket of the table, which takes 10 ms where there are 262,144, all empty, and this less than one.
func (c *Conntrack) senders(addrs []netip.Addr) ([]netip.Addr, error) {
	list, err := os.Open(c.list)
	if errors.Is(err, fs.ErrNotExist) {
		return addrs, nil
	}
	if err != nil {
		return nil, err
	}
	found := map[netip.Addr]bool{}
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		for _, a := range addrs {
			// Both directions are on one line. The kernel writes IPv6 addresses in full.
			found[a] = found[a] || bytes.Contains(lines.Bytes(), []byte(" src="+a.StringExpanded()+" "))
		}
	}
	if err := errors.Join(lines.Err(), list.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", c.list, err)
	}
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !found[a] }), nil
}

// decodeFlow decodes a conntrack message.
func decodeFlow(message []byte) (f flow, err error) {
	top, err := decodeMessage(message)
	if err != nil {
		return f, err
	}
	if f.there, err = decodeTuple(top[nl.CTA_TUPLE_ORIG]); err != nil {
		return f, fmt.Errorf("the original direction of a flow: %w", err)
	}
	if f.back, err = decodeTuple(top[nl.CTA_TUPLE_REPLY]); err != nil {
		return f, fmt.Errorf("the reply direction of a flow: %w", err)
	}
	return f, nil
}

// tuple is one direction of a flow.
type tuple struct {
	from, to netip.Addr
	protocol uint8
	port     uint16 // of the destination; 0 where the protocol has none
}

func decodeTuple(data []byte) (t tuple, err error) {
	parts, err := decodeAttributes(data)
	if err != nil {
		return t, err
	}
	ip, err := decodeAttributes(parts[nl.CTA_TUPLE_IP])
	if err != nil {
		return t, err
	}
	for _, a := range []struct {
		into *netip.Addr
		kind uint16
	}{{&t.from, nl.CTA_IP_V4_SRC}, {&t.to, nl.CTA_IP_V4_DST}, {&t.from, nl.CTA_IP_V6_SRC}, {&t.to, nl.CTA_IP_V6_DST}} {
		if addr, ok := netip.AddrFromSlice(ip[a.kind]); ok {
			*a.into = addr
		}
	}
	proto, err := decodeAttributes(parts[nl.CTA_TUPLE_PROTO])
	if err != nil {
		return t, err
	}
	if n := proto[nl.CTA_PROTO_NUM]; len(n) == 1 {
		t.protocol = n[0]
	}
	if p := proto[nl.CTA_PROTO_DST_PORT]; len(p) == 2 {
		t.port = binary.BigEndian.Uint16(p)
	}
	return t, nil
}
