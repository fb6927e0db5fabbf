package vif

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netvmd/internal/rtnetlink"
)

const (
	// vifGroup is the link group of every vif, the same as in Qubes. Firewall rules know a vif by it.
	vifGroup = 2
	// devicePatience is how long the device may be late: hotplug has been seen to run before it is there.
	devicePatience = 5 * time.Second
)

// kernel is rtnetlink in the network namespace of the thread that opened it.
type kernel struct{ *netlink.Handle }

func openKernel() (*kernel, error) {
	h, err := rtnetlink.Open()
	if err != nil {
		return nil, err
	}
	return &kernel{h}, nil
}

// link finds a device; nil = there is none of that name.
func (k *kernel) link(name string) (netlink.Link, error) { return rtnetlink.Find(k.Handle, name) }

// awaitLink finds a device, and waits for one that is not there yet.
func (k *kernel) awaitLink(ctx context.Context, name string) (netlink.Link, error) {
	if l, err := k.link(name); l != nil || err != nil {
		return l, err
	}
	ctx, cancel := context.WithTimeout(ctx, devicePatience)
	defer cancel()
	updates, done := make(chan netlink.LinkUpdate, 16), make(chan struct{})
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		close(done)
		return nil, fmt.Errorf("wait for the device: %w", err)
	}
	defer func() {
		close(done)
		go drain(updates) // until the subscription's goroutine notices and closes it
	}()
	for {
		if l, err := k.link(name); l != nil || err != nil {
			return l, err
		}
		select {
		case _, open := <-updates:
			if !open {
				return nil, errors.New("wait for the device: rtnetlink ended the subscription")
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("no device of that name after %s: has the backend driver (xen-netback) made it?", devicePatience)
		}
	}
}

// up puts the device into the vifs' group and sets it up; the group first, as the rules know a vif by it.
func (k *kernel) up(l netlink.Link) error {
	if l.Attrs().Group != vifGroup {
		if err := k.LinkSetGroup(l, vifGroup); err != nil {
			return fmt.Errorf("put the device into group %d: %w", vifGroup, err)
		}
	}
	if l.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := k.LinkSetUp(l); err != nil {
		return fmt.Errorf("set the device up: %w", err)
	}
	return nil
}

// isVif tells whether the device was made a vif, so that it may have routes and addresses.
func isVif(l netlink.Link) bool {
	return l.Attrs().Group == vifGroup || l.Attrs().Flags&net.FlagUp != 0
}

// The three below bring what a device has to what it must have. Of a fresh device they ask nothing: a list is one of
// all devices, so it would cost the more the more vifs there are.

// neighbours makes the AppVM's addresses permanent neighbours, so that nobody asks for them, and forgets others.
func (k *kernel) neighbours(l netlink.Link, fresh bool, addrs []netip.Addr, mac net.HardwareAddr) error {
	index := l.Attrs().Index
	for _, a := range addrs {
		n := &netlink.Neigh{LinkIndex: index, State: unix.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac}
		if err := k.NeighSet(n); err != nil {
			return fmt.Errorf("set the neighbour %s to %s: %w", a, mac, err)
		}
	}
	if fresh {
		return nil
	}
	list, err := rtnetlink.Whole(func() ([]netlink.Neigh, error) { return k.NeighList(index, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list the neighbours: %w", err)
	}
	for _, n := range list {
		if n.State&unix.NUD_PERMANENT == 0 || slices.Contains(addrs, rtnetlink.Address(n.IP)) {
			continue
		}
		if err := k.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forget the neighbour %s: %w", n.IP, err)
		}
	}
	return nil
}

// routes leads the AppVM's addresses to the device, and nothing else.
func (k *kernel) routes(l netlink.Link, fresh bool, addrs []netip.Addr, metric int) error {
	is, err := k.hostRoutes(l, fresh)
	if err != nil {
		return err
	}
	for _, r := range is {
		if a := rtnetlink.Address(r.Dst.IP); slices.Contains(addrs, a) && r.Priority == priority(a, metric) {
			continue
		}
		if err := k.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("delete the route to %s: %w", r.Dst, err)
		}
	}
	for _, a := range addrs {
		if slices.ContainsFunc(is, func(r netlink.Route) bool {
			return rtnetlink.Address(r.Dst.IP) == a && r.Priority == priority(a, metric)
		}) {
			continue
		}
		// It replaces what a device that is gone by now, or nobody knows who, has left.
		if err := k.RouteReplace(hostRoute(l, a, metric)); err != nil {
			return fmt.Errorf("add the route to %s with metric %d: %w", a, metric, err)
		}
	}
	return nil
}

func hostRoute(l netlink.Link, a netip.Addr, metric int) *netlink.Route {
	return &netlink.Route{
		LinkIndex: l.Attrs().Index, Dst: single(a), Scope: netlink.SCOPE_LINK, Priority: priority(a, metric),
		Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_BOOT,
	}
}

// priority is a metric as the kernel takes it: for IPv6, 0 would mean 1024 (IP6_RT_PRIO_USER).
func priority(a netip.Addr, metric int) int {
	if a.Is4() {
		return metric
	}
	return max(metric, 1)
}

// hostRoutes lists the routes of the main table that lead to the device. The kernel's own, to link-local IPv6
// addresses, are left out.
func (k *kernel) hostRoutes(l netlink.Link, fresh bool) ([]netlink.Route, error) {
	if fresh {
		return nil, nil
	}
	filter := &netlink.Route{LinkIndex: l.Attrs().Index, Table: unix.RT_TABLE_MAIN}
	list, err := rtnetlink.Whole(func() ([]netlink.Route, error) {
		return k.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list the routes: %w", err)
	}
	return slices.DeleteFunc(list, func(r netlink.Route) bool { return r.Dst == nil || r.Protocol == unix.RTPROT_KERNEL }), nil
}

// addresses gives the device exactly these addresses, each of one host. Link-local ones are the kernel's business.
func (k *kernel) addresses(l netlink.Link, fresh bool, wanted []netip.Addr) error {
	is, err := k.keepAddresses(l, fresh, wanted)
	if err != nil {
		return err
	}
	for _, a := range wanted {
		if slices.Contains(is, a) {
			continue
		}
		// Nobody else is on the link whom duplicate detection could ask.
		if err := k.AddrAdd(l, &netlink.Addr{IPNet: single(a), Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("add the address %s: %w", a, err)
		}
	}
	return nil
}

// keepAddresses removes from a device all addresses but those wanted, and returns what stays.
func (k *kernel) keepAddresses(l netlink.Link, fresh bool, wanted []netip.Addr) (is []netip.Addr, err error) {
	if fresh {
		return nil, nil
	}
	list, err := rtnetlink.Whole(func() ([]netlink.Addr, error) { return k.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the addresses: %w", err)
	}
	for _, a := range list {
		addr := rtnetlink.Address(a.IP)
		if ones, bits := a.Mask.Size(); slices.Contains(wanted, addr) && ones == bits {
			is = append(is, addr)
			continue
		}
		if addr.IsLinkLocalUnicast() {
			continue
		}
		if err := k.AddrDel(l, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil, fmt.Errorf("remove the address %s: %w", a.IPNet, err)
		}
	}
	return is, nil
}

// isLocal tells whether the kernel takes an address for the netvm's own, or for the broadcast address of a network
// that it is on.
func (k *kernel) isLocal(a netip.Addr) (bool, error) {
	list, err := k.ask(a)
	return slices.ContainsFunc(list, func(r netlink.Route) bool { return r.Type == unix.RTN_LOCAL || r.Type == unix.RTN_BROADCAST }), err
}

// routeTo is the index of the device over which the kernel reaches an address; 0 = it does not reach it.
func (k *kernel) routeTo(a netip.Addr) (int, error) {
	list, err := k.ask(a)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return list[0].LinkIndex, nil
}

// ask asks for the route to an address; none is no error.
func (k *kernel) ask(a netip.Addr) ([]netlink.Route, error) {
	list, err := k.RouteGet(a.AsSlice())
	for _, none := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL} {
		if errors.Is(err, none) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the route to %s: %w", a, err)
	}
	return list, nil
}

// clear takes from a device what made it a vif. It is set down first, while the rules still guard it.
func (k *kernel) clear(l netlink.Link) error {
	if err := k.LinkSetDown(l); err != nil {
		return fmt.Errorf("set the device down: %w", err)
	}
	if err := k.routes(l, false, nil, 0); err != nil {
		return err
	}
	if err := k.addresses(l, false, nil); err != nil {
		return err
	}
	if err := k.neighbours(l, false, nil, nil); err != nil {
		return err
	}
	if err := k.LinkSetGroup(l, 0); err != nil {
		return fmt.Errorf("take the device out of group %d: %w", vifGroup, err)
	}
	return nil
}

// single is the network that holds one address.
func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
