package nmhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
	"netvmd/internal/rtnetlink"
)

// uplinkGroups are the rtnetlink groups in which an uplink can change (linux/rtnetlink.h).
const uplinkGroups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
	unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE

// dumpAttempts bounds how often a dump that the kernel interrupted is begun again at once.
const dumpAttempts = 10

// chainFollower follows the way out through another netvm while one serves this one: which devices the kernel's default
// routes lead to, and whether they carry. Where none does, nothing wakes up.
type chainFollower struct {
	board *board
	log   *slog.Logger
	told  chan struct{} // capacity 1: served may be different

	mu     sync.Mutex
	served bool
}

func newChainFollower(b *board, log *slog.Logger) *chainFollower {
	return &chainFollower{board: b, log: log, told: make(chan struct{}, 1)}
}

func (f *chainFollower) serve(served bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.served == served {
		return
	}
	f.served = served
	select {
	case f.told <- struct{}{}:
	default: // is to look already
	}
}

func (f *chainFollower) isServed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.served
}

// run reads whenever that is asked for, and follows rtnetlink while another netvm serves this one, until ctx ends.
func (f *chainFollower) run(ctx context.Context) {
	var following sync.WaitGroup
	defer following.Wait()
	stop := func() {}
	defer func() { stop() }()
	follows := false
	f.board.kickOnly(sourceChained)
	for {
		if served := f.isServed(); served != follows {
			stop()
			stop, follows = func() {}, served
			if served {
				stop = f.follow(ctx, &following)
			}
			f.board.kickOnly(sourceChained)
		}
		select {
		case <-ctx.Done():
			return
		case <-f.told:
		case <-f.board.kick[sourceChained]:
			f.read(follows)
		}
	}
}

// follow marks the source at every event of rtnetlink until the function that it returns is called.
func (f *chainFollower) follow(ctx context.Context, following *sync.WaitGroup) (stop func()) {
	ctx, stop = context.WithCancel(ctx)
	following.Add(1)
	go func() {
		defer following.Done()
		any := func(uint16, []byte) bool { return true }
		rtnetlink.Persist(ctx, f.log, "the uplink", func(ctx context.Context) error {
			return rtnetlink.Follow(ctx, uplinkGroups, any, func() {
				f.board.mark(sourceChained, pending{arrived: time.Now(), signals: 1})
			})
		})
	}()
	return stop
}

// read puts up the way out as it is now.
func (f *chainFollower) read(served bool) {
	asked, _ := f.board.collect(sourceChained)
	var chained netvm.Chained
	if served {
		var err error
		if chained, err = readChained(); err != nil {
			f.board.publishFailed(sourceChained, asked, err)
			return
		}
	}
	f.board.publish(sourceChained, asked, nil, func(v *netvm.View) { v.Chained = chained })
}

// network is what the kernel has in this network namespace.
type network struct {
	links     []netlink.Link
	addresses []netlink.Addr
	routes    []netlink.Route // of the main tables, IPv4 before IPv6
}

// readChained reads all that the way out depends on, and decides.
func readChained() (netvm.Chained, error) {
	var n network
	var err error
	if n.links, err = whole("devices", netlink.LinkList); err != nil {
		return netvm.Chained{}, err
	}
	if n.addresses, err = whole("addresses", func() ([]netlink.Addr, error) {
		return netlink.AddrList(nil, netlink.FAMILY_ALL)
	}); err != nil {
		return netvm.Chained{}, err
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := whole("routes", func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
		if err != nil {
			return netvm.Chained{}, err
		}
		// The kernel takes the lower metric first; of one metric, the route that it lists first.
		slices.SortStableFunc(routes, func(a, b netlink.Route) int { return cmp.Compare(a.Priority, b.Priority) })
		n.routes = append(n.routes, routes...)
	}
	return n.wayOut(), nil
}

// whole dumps until a dump was not interrupted.
func whole[T any](what string, dump func() ([]T, error)) (list []T, err error) {
	for range dumpAttempts {
		if list, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("dump the %s over rtnetlink: %w", what, err)
	}
	return list, nil
}

// wayOut is the devices with a default route that carry. Without any, routes that somebody has set over such a device still
// lead to the netvm above: Qubes' service disable-default-route leaves just these.
func (n network) wayOut() netvm.Chained {
	if uplinks := n.uplinks(isDefault); len(uplinks) > 0 {
		return netvm.Chained{State: netvm.Online, Uplinks: uplinks}
	}
	if uplinks := n.uplinks(isSet); len(uplinks) > 0 {
		return netvm.Chained{State: netvm.Limited, Uplinks: uplinks}
	}
	return netvm.Chained{State: netvm.Offline}
}

// isDefault tells whether a route is for everything.
func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	bits, _ := r.Dst.Mask.Size()
	return bits == 0
}

// isSet tells whether a route was not made by the kernel for an address.
func isSet(r netlink.Route) bool { return r.Protocol != unix.RTPROT_KERNEL }

// uplinks are the devices that routes of a sort lead to.
func (n network) uplinks(sort func(netlink.Route) bool) []netvm.Uplink {
	var out []netvm.Uplink
	for _, r := range n.routes {
		if r.Type != unix.RTN_UNICAST || !sort(r) {
			continue
		}
		link := n.link(r.LinkIndex)
		if link == nil || slices.ContainsFunc(out, func(u netvm.Uplink) bool { return u.Interface == link.Attrs().Name }) {
			continue
		}
		if up, is := n.uplink(link); is {
			up.Gateway = n.gateway(link.Attrs().Index)
			out = append(out, up)
		}
	}
	return out
}

func (n network) link(index int) netlink.Link {
	for _, l := range n.links {
		if l.Attrs().Index == index {
			return l
		}
	}
	return nil
}

// uplink describes a device, if it can be one: it carries and has an address that others can answer to.
func (n network) uplink(link netlink.Link) (netvm.Uplink, bool) {
	a := link.Attrs()
	if a.Flags&net.FlagLoopback != 0 || a.RawFlags&unix.IFF_LOWER_UP == 0 || isVif(a.Name) {
		return netvm.Uplink{}, false
	}
	up := netvm.Uplink{Type: netvm.TypeNetVM, Interface: a.Name}
	switch link.Type() {
	case "wireguard":
		up.Type = "wireguard"
	case "tuntap", "tun":
		up.Type, up.VPN = "tun", true
	}
	for _, address := range n.addresses {
		ip, ok := netip.AddrFromSlice(address.IP)
		if address.LinkIndex != a.Index || !ok || ip.Unmap().IsLinkLocalUnicast() {
			continue
		}
		bits, _ := address.Mask.Size()
		up.Addresses = append(up.Addresses, netip.PrefixFrom(ip.Unmap(), bits))
	}
	return up, len(up.Addresses) > 0
}

// gateway is the first that a default route over the device names; the zero Addr if none does.
func (n network) gateway(index int) netip.Addr {
	for _, r := range n.routes {
		if r.LinkIndex != index || !isDefault(r) {
			continue
		}
		if a, ok := netip.AddrFromSlice(r.Gw); ok {
			return a.Unmap()
		}
	}
	return netip.Addr{}
}
