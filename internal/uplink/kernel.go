package uplink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netvmd/internal/rtnetlink"
)

const (
	// uplinkGroup is the link group of every interface that leads to a netvm, the same as in Qubes.
	uplinkGroup = 1
	// metric6 is what the kernel makes of an IPv6 route without a metric (IP6_RT_PRIO_USER); for IPv4 that is 0.
	metric6 = 1024
)

// netvmMAC is what Xen gives to the netvm's end of every card, so that nobody has to ask for it.
var netvmMAC = net.HardwareAddr{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff}

// kernel is rtnetlink in the network namespace of the thread that opened it.
type kernel struct {
	*netlink.Handle
	pretend bool // nothing is written, and the changes are those that there would be
}

func openKernel() (kernel, error) {
	h, err := rtnetlink.Open()
	return kernel{Handle: h}, err
}

// write changes something, or pretends to.
func (k kernel) write(change func() error) error {
	if k.pretend {
		return nil
	}
	return change()
}

// link finds a device; nil = there is none of that name.
func (k kernel) link(name string) (netlink.Link, error) { return rtnetlink.Find(k.Handle, name) }

// wanted is what an interface is to have.
type wanted struct {
	own    []netip.Prefix
	hosts  []netip.Addr // permanent neighbours, all of them the netvm
	routes []netRoute
	whole  bool // Network: the kernel makes the routes to the addresses' networks
}

// want says what an interface needs for a Spec. Beyond the gateway each destination is asked for on the link, and the netvm
// answers for all that it can route; the nameservers are neighbours for ever, so that it refuses a query at once also while
// it has no route.
func want(s Spec) wanted {
	w := wanted{own: s.Addresses, whole: s.Network}
	for _, p := range s.Addresses {
		gateway, is4 := s.Gateway6, p.Addr().Is4()
		if is4 {
			gateway = s.Gateway
		}
		near := []netip.Addr{gateway}
		for _, r := range s.Resolvers {
			if r.Is4() == is4 && !slices.Contains(near, r) {
				near = append(near, r)
			}
		}
		if !s.Network {
			w.hosts = append(w.hosts, near...)
		}
		everything := netip.PrefixFrom(unspecified(is4), 0)
		switch {
		case s.DefaultRoute && is4 && !s.Network:
			w.routes = append(w.routes, netRoute{To: everything})
		case s.DefaultRoute:
			w.routes = append(w.routes, netRoute{To: everything, Via: gateway})
		case !s.Network:
			for _, a := range near {
				if !a.IsLinkLocalUnicast() { // the kernel has a route to those
					w.routes = append(w.routes, netRoute{To: netip.PrefixFrom(a, a.BitLen())})
				}
			}
		}
	}
	return w
}

func unspecified(is4 bool) netip.Addr {
	if is4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// group puts the device into a link group.
func (k kernel) group(l netlink.Link, group uint32) (changes []string, err error) {
	if l.Attrs().Group == group {
		return nil, nil
	}
	if err := k.write(func() error { return k.LinkSetGroup(l, int(group)) }); err != nil {
		return nil, fmt.Errorf("put the device into group %d: %w", group, err)
	}
	return []string{fmt.Sprintf("put into group %d", group)}, nil
}

// up sets the device up.
func (k kernel) up(l netlink.Link) (changes []string, err error) {
	if l.Attrs().Flags&net.FlagUp != 0 {
		return nil, nil
	}
	if err := k.write(func() error { return k.LinkSetUp(l) }); err != nil {
		return nil, fmt.Errorf("set the device up: %w", err)
	}
	return []string{"set up"}, nil
}

// down sets the device down, so that nothing goes out any more.
func (k kernel) down(l netlink.Link) (changes []string, err error) {
	if l.Attrs().Flags&net.FlagUp == 0 {
		return nil, nil
	}
	if err := k.LinkSetDown(l); err != nil {
		return nil, fmt.Errorf("set the device down: %w", err)
	}
	return []string{"set down"}, nil
}

// addresses gives the device the wanted addresses, and takes the others of ours.
func (k kernel) addresses(l netlink.Link, w wanted, ours []netip.Prefix) (changes []string, err error) {
	list, err := rtnetlink.Whole(func() ([]netlink.Addr, error) { return k.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the addresses: %w", err)
	}
	var is []netip.Prefix
	for _, a := range list {
		p := prefixOf(a.IPNet)
		if slices.Contains(w.own, p) {
			is = append(is, p)
			continue
		}
		if !slices.Contains(ours, p) && !sameAddress(w.own, p) {
			continue
		}
		if err := k.write(func() error { return k.AddrDel(l, &a) }); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return changes, fmt.Errorf("remove the address %s: %w", p, err)
		}
		changes = append(changes, fmt.Sprintf("removed the address %s", p))
	}
	for _, p := range w.own {
		if slices.Contains(is, p) {
			continue
		}
		a := &netlink.Addr{IPNet: netOf(p), Flags: unix.IFA_F_NODAD} // the netvm lets nobody else have it
		if !w.whole {
			a.Flags |= unix.IFA_F_NOPREFIXROUTE
		}
		if p.Addr().Is4() {
			a.Flags &^= unix.IFA_F_NODAD
		}
		if err := k.write(func() error { return k.AddrAdd(l, a) }); err != nil {
			return changes, fmt.Errorf("add the address %s: %w", p, err)
		}
		changes = append(changes, fmt.Sprintf("added the address %s", p))
	}
	return changes, nil
}

// sameAddress tells whether an address is wanted with another length.
func sameAddress(list []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(list, func(w netip.Prefix) bool { return w.Addr() == p.Addr() })
}

// neighbours makes the netvm the wanted neighbours, and forgets the others of ours.
func (k kernel) neighbours(l netlink.Link, w, ours []netip.Addr) (changes []string, err error) {
	index := l.Attrs().Index
	list, err := rtnetlink.Whole(func() ([]netlink.Neigh, error) { return k.NeighList(index, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the neighbours: %w", err)
	}
	var is []netip.Addr
	for _, n := range list {
		a := rtnetlink.Address(n.IP)
		permanent := n.State&unix.NUD_PERMANENT != 0
		switch {
		case slices.Contains(w, a) && permanent && slices.Equal(n.HardwareAddr, netvmMAC):
			is = append(is, a)
		case !slices.Contains(w, a) && permanent && slices.Contains(ours, a):
			if err := k.write(func() error { return k.NeighDel(&n) }); err != nil && !errors.Is(err, unix.ENOENT) {
				return changes, fmt.Errorf("forget the neighbour %s: %w", a, err)
			}
			changes = append(changes, fmt.Sprintf("forgot the neighbour %s", a))
		}
	}
	for _, a := range w {
		if slices.Contains(is, a) {
			continue
		}
		n := &netlink.Neigh{LinkIndex: index, State: unix.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: netvmMAC}
		if err := k.write(func() error { return k.NeighSet(n) }); err != nil {
			return changes, fmt.Errorf("set the neighbour %s to %s: %w", a, netvmMAC, err)
		}
		changes = append(changes, fmt.Sprintf("set the neighbour %s to %s", a, netvmMAC))
	}
	return changes, nil
}

// routes leads the wanted destinations to the device, and takes away the others of ours. Where everything is to go there,
// other default routes over the same device are taken away too.
func (k kernel) routes(l netlink.Link, w, ours []netRoute) (changes []string, err error) {
	filter := &netlink.Route{LinkIndex: l.Attrs().Index, Table: unix.RT_TABLE_MAIN}
	list, err := rtnetlink.Whole(func() ([]netlink.Route, error) {
		return k.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list the routes: %w", err)
	}
	var is []netRoute
	for _, r := range list {
		have := routeOf(r)
		rival := have.To.Bits() == 0 && slices.ContainsFunc(w, func(o netRoute) bool { return o.To == have.To })
		switch {
		case r.Priority == have.metric() && slices.Contains(w, have):
			is = append(is, have)
		case rival || slices.Contains(ours, have) && r.Priority == have.metric():
			if err := k.write(func() error { return k.RouteDel(&r) }); err != nil && !errors.Is(err, unix.ESRCH) {
				return changes, fmt.Errorf("delete the route %s: %w", have, err)
			}
			changes = append(changes, fmt.Sprintf("deleted the route %s", have))
		}
	}
	for _, r := range w {
		if slices.Contains(is, r) {
			continue
		}
		err := k.write(func() error { return k.RouteAdd(r.on(l)) }) // not in the place of one over another device
		if errors.Is(err, unix.EEXIST) {
			err = fmt.Errorf("another device has such a route already: %w", err)
		}
		if err != nil {
			return changes, fmt.Errorf("add the route %s: %w", r, err)
		}
		changes = append(changes, fmt.Sprintf("added the route %s", r))
	}
	return changes, nil
}

// on is the route as rtnetlink wants it, over a device.
func (r netRoute) on(l netlink.Link) *netlink.Route {
	out := &netlink.Route{
		LinkIndex: l.Attrs().Index, Dst: netOf(r.To), Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_BOOT, Priority: r.metric(),
		Family: netlink.FAMILY_V6,
	}
	if r.To.Addr().Is4() {
		out.Family = netlink.FAMILY_V4
	}
	if r.Via.IsValid() {
		out.Gw, out.Flags = r.Via.AsSlice(), int(netlink.FLAG_ONLINK)
	} else {
		out.Scope = netlink.SCOPE_LINK
	}
	return out
}

func (r netRoute) metric() int {
	if r.To.Addr().Is4() {
		return 0
	}
	return metric6
}

func (r netRoute) String() string {
	to := r.To.String()
	if r.To.Bits() == 0 {
		to = "default"
		if r.To.Addr().Is6() {
			to = "default (IPv6)"
		}
	}
	if r.Via.IsValid() {
		return fmt.Sprintf("%s via %s", to, r.Via)
	}
	return to + " on the link"
}

// routeOf is the typed form of a route of the netlink library, which gives none or 0.0.0.0/0 as the destination of a
// default route.
func routeOf(r netlink.Route) netRoute {
	out := netRoute{To: netip.PrefixFrom(unspecified(r.Family == netlink.FAMILY_V4), 0), Via: rtnetlink.Address(r.Gw)}
	if r.Dst != nil {
		out.To = prefixOf(r.Dst)
	}
	return out
}

func netOf(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(rtnetlink.Address(n.IP), ones)
}
