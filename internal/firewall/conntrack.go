package firewall

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

// AnswerGrace is how long a resolver of the past may still answer after a change of targets: a resolver that
// answers at all does so within a second or two (glibc asks again after 5 s, systemd-resolved after less). It is the
// time between PurgeDead and PurgeStale.
const AnswerGrace = 2 * time.Second

// conntrackTimeout bounds one netlink message to conntrack.
const conntrackTimeout = 5 * time.Second

// Conntrack deletes flows that hold queries to a resolver that is no longer the target. NAT is decided on a flow's
// first packet, so without this a TCP connection stays with the old resolver, and so does a UDP client whose old and
// new resolver happen to share a zone. Its methods are for one goroutine at a time.
type Conntrack struct {
	handle *netlink.Handle
	socket *nl.NetlinkSocket
	list   string // flowList
}

// NewConntrack opens conntrack for the network namespace of the calling thread.
func NewConntrack() (*Conntrack, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("conntrack: open netlink sockets: %w", err)
	}
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER) // to no group: just a socket of our own
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("conntrack: open a netlink socket: %w", err)
	}
	timeout := unix.NsecToTimeval(conntrackTimeout.Nanoseconds())
	if err := errors.Join(h.SetSocketTimeout(conntrackTimeout), socket.SetReceiveTimeout(&timeout), socket.SetSendTimeout(&timeout)); err != nil {
		h.Close()
		socket.Close()
		return nil, fmt.Errorf("conntrack: set a timeout: %w", err)
	}
	return &Conntrack{handle: h, socket: socket, list: flowList}, nil
}

// Close gives the netlink sockets back.
func (c *Conntrack) Close() {
	c.handle.Close()
	c.socket.Close()
}

// PurgeDead deletes the DNS flows that no answer can reach any more, because their masquerade address is gone or
// because they were never translated, and returns how many. It is the first look, at once after a change: answers on
// their way from a resolver that is still reachable are left alone.
func (c *Conntrack) PurgeDead(ctx context.Context, targets []netvm.Target) (int, error) {
	want, err := wanted(targets)
	if err != nil {
		return 0, fmt.Errorf("conntrack: %w", err)
	}
	own, err := c.ownAddresses(ctx)
	if err != nil {
		return 0, err
	}
	return c.purge(ctx, want, func(f dnsFlow, e entry) bool {
		if f.client != f.answerTo && !own[f.answerTo] {
			return true
		}
		return f.resolver != e.resolver && f.resolver == f.virtual
	})
}

// PurgeStale deletes all DNS flows that lead elsewhere than to the current target and returns how many. It is the
// second look, AnswerGrace after a change.
func (c *Conntrack) PurgeStale(ctx context.Context, targets []netvm.Target) (int, error) {
	want, err := wanted(targets)
	if err != nil {
		return 0, fmt.Errorf("conntrack: %w", err)
	}
	return c.purge(ctx, want, func(f dnsFlow, e entry) bool { return f.resolver != e.resolver })
}

// dnsFlow is a flow that began as a query to a virtual address.
type dnsFlow struct {
	client   netip.Addr
	virtual  netip.Addr
	resolver netip.Addr // where the answers come from
	answerTo netip.Addr // where they go: the client, or the address that it is masqueraded with
}

// purge deletes the flows that are doomed and returns how many.
func (c *Conntrack) purge(ctx context.Context, want table, doomed func(dnsFlow, entry) bool) (int, error) {
	total := 0
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if len(want.sorted(family == unix.AF_INET)) == 0 {
			continue
		}
		for _, protocol := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			found, err := c.find(ctx, family, toDNSPort(protocol), func(f flow) bool {
				if f.there.protocol != protocol || f.there.port != dnsPort {
					return false
				}
				query := dnsFlow{client: f.there.from, virtual: f.there.to, resolver: f.back.from, answerTo: f.back.to}
				e, known := want[query.virtual]
				return known && doomed(query, e)
			})
			if err != nil {
				return total, fmt.Errorf("conntrack: list DNS flows: %w", err)
			}
			gone, err := c.forgetAll(ctx, found)
			total += gone
			if err != nil {
				return total, fmt.Errorf("conntrack: delete DNS flows: %w", err)
			}
		}
	}
	return total, nil
}

// PurgeAddresses deletes every flow that one of these addresses began or answers. An address that moves from one AppVM
// to another takes no flow along.
func (c *Conntrack) PurgeAddresses(ctx context.Context, addrs []netip.Addr) error {
	addrs, err := c.senders(addrs)
	if err != nil {
		return fmt.Errorf("conntrack: %w", err)
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		mine := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return a.Is4() != (family == unix.AF_INET) })
		if len(mine) == 0 {
			continue
		}
		// The kernel is not asked to look for the addresses itself: up to Linux 6.18 at least, it compares those of IPv6
		// the wrong way round (ctnetlink_filter_match_tuple).
		found, err := c.find(ctx, family, nil, func(f flow) bool {
			return slices.Contains(mine, f.there.from) || slices.Contains(mine, f.back.from)
		})
		if err != nil {
			return fmt.Errorf("conntrack: list the flows of %v: %w", mine, err)
		}
		if _, err := c.forgetAll(ctx, found); err != nil {
			return fmt.Errorf("conntrack: delete the flows of %v: %w", mine, err)
		}
	}
	return nil
}

// ownAddresses are all addresses of this machine.
func (c *Conntrack) ownAddresses(ctx context.Context) (map[netip.Addr]bool, error) {
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("conntrack: list own addresses: %w", err)
		}
		list, err := c.handle.AddrList(nil, netlink.FAMILY_ALL)
		if errors.Is(err, netlink.ErrDumpInterrupted) && attempt < dumpAttempts {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("conntrack: list own addresses: %w", err)
		}
		own := make(map[netip.Addr]bool, len(list))
		for _, a := range list {
			own[address(a.IP)] = true
		}
		return own, nil
	}
}

// address is the typed form of an address of the netlink library; the zero Addr for none.
func address(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
