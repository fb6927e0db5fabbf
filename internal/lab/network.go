package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// site is the plan of a network that the netvm can connect to. Addresses are of the ranges reserved for
// documentation (RFC 5737, RFC 3849), but for the VPN's, which is private as VPNs' are.
type site struct {
	name      string
	device    string // the netvm's device there
	mac       string // that device's
	dhcp      bool
	prefix    netip.Prefix // of the router
	netvm     netip.Addr
	prefix6   netip.Prefix // of the router
	netvm6    netip.Addr
	resolvers []netip.Addr // v4 first
}

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

var (
	homeSite = site{
		name: "home", device: "home0", mac: "52:54:00:00:01:10", dhcp: true,
		prefix: prefix("192.0.2.1/24"), netvm: addr("192.0.2.10"),
		prefix6: prefix("2001:db8:1::1/64"), netvm6: addr("2001:db8:1::10"),
		resolvers: []netip.Addr{addr("192.0.2.53"), addr("192.0.2.54"), addr("192.0.2.55"),
			addr("2001:db8:1::53"), addr("2001:db8:1::54")},
	}
	officeSite = site{
		name: "office", device: "office0", mac: "52:54:00:00:02:10", dhcp: true,
		prefix: prefix("198.51.100.1/24"), netvm: addr("198.51.100.10"),
		prefix6: prefix("2001:db8:2::1/64"), netvm6: addr("2001:db8:2::10"),
		resolvers: []netip.Addr{addr("198.51.100.53"), addr("198.51.100.54"), addr("198.51.100.55"),
			addr("2001:db8:2::53"), addr("2001:db8:2::54")},
	}
	vpnSite = site{
		name: "vpn", device: "vpn0", mac: "52:54:00:00:08:10",
		prefix: prefix("10.8.0.1/24"), netvm: addr("10.8.0.2"),
		prefix6: prefix("2001:db8:8::1/64"), netvm6: addr("2001:db8:8::2"),
		resolvers: []netip.Addr{addr("10.8.0.1"), addr("2001:db8:8::1")},
	}
)

// Internet is an address that home and office both lead to, for flows that are not DNS.
var Internet = addr("203.0.113.80")

// Network is a network that the netvm can connect to: a router that serves DHCP (but for the VPN) and
// resolvers, each with its own answers.
type Network struct {
	*Host
	Device    string       // the netvm's device on it; also the peer of the link lan0 here
	NetVM     netip.Addr   // the netvm's address on it
	NetVM6    netip.Addr   // and its IPv6 address, where a connection asks for it
	Router    netip.Prefix // the router's address
	Router6   netip.Prefix
	Resolvers []netip.Addr // v4 first; each answers whoami.lab with its own address; DHCP announces the first two

	site    site
	dhcp    *Process
	servers map[netip.Addr]*Process
}

// newNetwork makes the host of a network, cabled to the netvm.
func newNetwork(s site, netvm *Host) (*Network, error) {
	h, err := newHost(s.name)
	if err != nil {
		return nil, err
	}
	n := &Network{Host: h, Device: s.device, NetVM: s.netvm, NetVM6: s.netvm6, Router: s.prefix, Router6: s.prefix6,
		Resolvers: s.resolvers, site: s, servers: map[netip.Addr]*Process{}}
	if err := cable(netvm, s.device, s.mac, h, "lan0", ""); err != nil {
		return nil, err
	}
	if err := n.address(); err != nil {
		return nil, fmt.Errorf("network %s: %w", s.name, err)
	}
	return n, nil
}

// serve starts the network's resolvers and DHCP.
func (n *Network) serve(ctx context.Context) error {
	for _, r := range n.site.resolvers {
		if err := n.StartResolver(ctx, r); err != nil {
			return err
		}
	}
	if n.site.dhcp {
		return n.Announce(ctx, n.site.resolvers[0], n.site.resolvers[1])
	}
	return nil
}

// settleAt gives the netvm its addresses on a network, and a way out through it, without NetworkManager.
func (v *NetVM) settleAt(n *Network) error {
	for _, way := range []struct{ router, own netip.Prefix }{
		{n.site.prefix, netip.PrefixFrom(n.site.netvm, n.site.prefix.Bits())},
		{n.site.prefix6, netip.PrefixFrom(n.site.netvm6, n.site.prefix6.Bits())},
	} {
		if err := v.addAddresses(n.Device, way.own); err != nil {
			return err
		}
		if err := v.addDefaultRoute(n.Device, way.router.Addr()); err != nil {
			return err
		}
	}
	return nil
}

// address gives the router its addresses, and the way back to AppVMs: replies reach them also while the
// netvm's masquerading is gone, as after `nft flush ruleset`.
func (n *Network) address() error {
	lan := []netip.Prefix{n.site.prefix, n.site.prefix6}
	for _, r := range n.site.resolvers {
		if r != n.site.prefix.Addr() && r != n.site.prefix6.Addr() {
			lan = append(lan, netip.PrefixFrom(r, r.BitLen()))
		}
	}
	if err := n.addAddresses("lan0", lan...); err != nil {
		return err
	}
	if err := n.addAddresses("lo", netip.PrefixFrom(Internet, 32)); err != nil {
		return err
	}
	if err := n.addRoute("lan0", appVMs, n.site.netvm, 0); err != nil {
		return err
	}
	return n.addRoute("lan0", appVMs6, n.site.netvm6, 0)
}

// StartResolver starts the DNS server of one of the network's resolver addresses. It answers whoami.lab,
// as TXT and as an address, with that address, over UDP and TCP, and refuses every other name.
func (n *Network) StartResolver(ctx context.Context, r netip.Addr) error {
	p, err := n.startDaemon(ctx, "resolver-"+n.Name+"-"+r.String(), "started, version", daemonCommand(ctx, "dnsmasq",
		"--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--group=", "--log-facility=-",
		"--no-resolv", "--no-hosts", "--pid-file=", "--bind-interfaces", "--listen-address="+r.String(),
		"--txt-record="+questionName+","+r.String(), "--host-record="+questionName+","+r.String()))
	if err != nil {
		return err
	}
	n.servers[r] = p
	return nil
}

// Announce makes DHCP announce these resolvers from the next lease or renewal on; none = none.
func (n *Network) Announce(ctx context.Context, resolvers ...netip.Addr) error {
	if err := n.dhcp.Stop(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	list := make([]string, 0, len(resolvers)+1)
	list = append(list, "option:dns-server")
	for _, r := range resolvers {
		list = append(list, r.String())
	}
	net4 := n.site.prefix.Masked()
	var err error
	n.dhcp, err = n.startDaemon(ctx, "dhcp-"+n.Name, "started, version", daemonCommand(ctx, "dnsmasq",
		"--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--group=", "--log-facility=-", "--log-dhcp",
		"--port=0", "--pid-file=", "--interface=lan0", "--bind-interfaces", "--leasefile-ro", "--dhcp-authoritative", "--no-ping",
		"--dhcp-range="+net4.Addr().String()+",static,"+maskOf(net4)+",1h",
		"--dhcp-host="+n.site.mac+","+n.site.netvm.String(),
		"--dhcp-option=option:router,"+n.site.prefix.Addr().String(),
		"--dhcp-option="+strings.Join(list, ",")))
	return err
}

// Unplug takes the carrier from the netvm's device; Plug gives it back.
func (n *Network) Unplug() error { return n.setLink("lan0", false) }

// Plug undoes Unplug.
func (n *Network) Plug() error { return n.setLink("lan0", true) }

func maskOf(p netip.Prefix) string { return net.IP(net.CIDRMask(p.Bits(), 32)).String() }

// cable joins two hosts by a veth pair, both ends up. An empty MAC is the kernel's choice.
func cable(a *Host, nameA, macA string, b *Host, nameB, macB string) error {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nameA, TxQLen: 1000}, PeerName: nameB,
		PeerNamespace: netlink.NsFd(int(b.netNS.Fd()))}
	if err := a.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("%s: add link %s to %s of %s: %w", a.Name, nameA, nameB, b.Name, err)
	}
	for _, end := range []struct {
		host      *Host
		name, mac string
	}{{a, nameA, macA}, {b, nameB, macB}} {
		if err := end.host.settleLink(end.name, end.mac); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) settleLink(name, mac string) error {
	link, err := h.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: find link %s: %w", h.Name, name, err)
	}
	if mac != "" {
		hw, err := net.ParseMAC(mac)
		if err != nil {
			return fmt.Errorf("%s: link %s: %w", h.Name, name, err)
		}
		if err := h.links.LinkSetHardwareAddr(link, hw); err != nil {
			return fmt.Errorf("%s: set address of link %s to %s: %w", h.Name, name, mac, err)
		}
	}
	if err := h.links.LinkSetUp(link); err != nil {
		return fmt.Errorf("%s: set link %s up: %w", h.Name, name, err)
	}
	return nil
}

// awaitCarrier waits until a device carries: one that is up drops what is sent until the kernel has noticed its peer.
func (h *Host) awaitCarrier(ctx context.Context, name string) error {
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	err := h.Do(func() error {
		return netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ListExisting: true})
	})
	if err != nil {
		close(done)
		return fmt.Errorf("%s: wait for %s to carry: %w", h.Name, name, err)
	}
	defer func() {
		close(done)
		go func() {
			for range updates { // until the subscription's goroutine notices and closes it
				continue
			}
		}()
	}()
	for {
		select {
		case u, open := <-updates:
			if !open {
				return fmt.Errorf("%s: wait for %s to carry: rtnetlink ended the subscription", h.Name, name)
			}
			if u.Attrs().Name == name && u.Attrs().OperState == netlink.OperUp {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("%s: %s does not carry: %w", h.Name, name, ctx.Err())
		}
	}
}

func (h *Host) setLink(name string, up bool) error {
	link, err := h.links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: find link %s: %w", h.Name, name, err)
	}
	set := h.links.LinkSetDown
	if up {
		set = h.links.LinkSetUp
	}
	if err := set(link); err != nil {
		return fmt.Errorf("%s: set link %s up=%t: %w", h.Name, name, up, err)
	}
	return nil
}

func (h *Host) addAddresses(link string, addresses ...netip.Prefix) error {
	l, err := h.links.LinkByName(link)
	if err != nil {
		return fmt.Errorf("%s: find link %s: %w", h.Name, link, err)
	}
	for _, a := range addresses {
		// Without NODAD an IPv6 address is tentative for a moment, whatever accept_dad says.
		if err := h.links.AddrAdd(l, &netlink.Addr{IPNet: ipNet(a), Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("%s: add address %s to %s: %w", h.Name, a, link, err)
		}
	}
	return nil
}

// addRoute adds a route over a link: via is the gateway, or the zero Addr for a directly reachable
// destination; metric 0 is the kernel's default.
func (h *Host) addRoute(link string, to netip.Prefix, via netip.Addr, metric int) error {
	l, err := h.links.LinkByName(link)
	if err != nil {
		return fmt.Errorf("%s: find link %s: %w", h.Name, link, err)
	}
	route := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(to.Masked()), Priority: metric}
	if via.IsValid() {
		route.Gw = via.AsSlice()
		route.SetFlag(netlink.FLAG_ONLINK)
	} else if to.Addr().Is4() {
		route.Scope = netlink.SCOPE_LINK
	}
	if err := h.links.RouteAdd(route); err != nil {
		return fmt.Errorf("%s: add route to %s over %s: %w", h.Name, to, link, err)
	}
	return nil
}

// addDefaultRoute sends everything of the gateway's family over the link to the gateway.
func (h *Host) addDefaultRoute(link string, gateway netip.Addr) error {
	everything := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	if gateway.Is4() {
		everything = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return h.addRoute(link, everything, gateway, 0)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
