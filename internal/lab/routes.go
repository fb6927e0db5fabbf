package lab

import (
	"fmt"
	"net/netip"
	"sort"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route is a line of the main IPv4 routing table.
type Route struct {
	Destination netip.Prefix
	Gateway     netip.Addr // the zero Addr without one
	Metric      int
	Interface   string
}

// Flags are those that route(8) prints.
func (r Route) Flags() string {
	flags := "U"
	if r.Gateway.IsValid() {
		flags += "G"
	}
	if r.Destination.IsSingleIP() {
		flags += "H"
	}
	return flags
}

// Routes returns the host's main IPv4 routing table, the default route first.
func (h *Host) Routes() ([]Route, error) {
	list, err := h.links.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("%s: list routes: %w", h.Name, err)
	}
	routes := make([]Route, 0, len(list))
	for _, r := range list {
		link, err := h.links.LinkByIndex(r.LinkIndex)
		if err != nil {
			return nil, fmt.Errorf("%s: find link %d of a route: %w", h.Name, r.LinkIndex, err)
		}
		route := Route{Destination: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Metric: r.Priority, Interface: link.Attrs().Name}
		if r.Dst != nil {
			to, ok := netip.AddrFromSlice(r.Dst.IP.To4())
			bits, _ := r.Dst.Mask.Size()
			if !ok {
				return nil, fmt.Errorf("%s: a route to %v", h.Name, r.Dst)
			}
			route.Destination = netip.PrefixFrom(to, bits)
		}
		if gw, ok := netip.AddrFromSlice(r.Gw.To4()); ok {
			route.Gateway = gw
		}
		routes = append(routes, route)
	}
	sort.SliceStable(routes, func(i, j int) bool {
		a, b := routes[i].Destination, routes[j].Destination
		if a.Addr() != b.Addr() {
			return a.Addr().Less(b.Addr())
		}
		return a.Bits() < b.Bits()
	})
	return routes, nil
}
