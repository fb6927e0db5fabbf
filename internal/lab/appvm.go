package lab

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// vifGroup is the link group of AppVMs' vifs, which firewall rules match.
	vifGroup = 2
	// vifMAC is the address that Xen gives to the backend end of every vif.
	vifMAC = "fe:ff:ff:ff:ff:ff"
	// metricBase minus the domid is the metric of the route to an AppVM: 32752 is Xen's highest domid.
	metricBase = 32752
)

// The ranges of AppVMs' addresses, and the netvm's own address towards them.
var (
	appVMs   = prefix("10.137.0.0/16")
	appVMs6  = prefix("fd09:24ef:4179::a89:0/112")
	gateway  = addr("10.137.0.6")
	gateway6 = addr("fd09:24ef:4179::a89:6")
)

// appPlan is what the toolstack would say about an AppVM.
type appPlan struct {
	name    string
	domid   int
	address netip.Addr
	addr6   netip.Addr
	mac     string
}

var (
	workPlan     = appPlan{"work", 1, addr("10.137.0.11"), addr("fd09:24ef:4179::a89:b"), "00:16:3e:5e:6c:01"}
	personalPlan = appPlan{"personal", 2, addr("10.137.0.12"), addr("fd09:24ef:4179::a89:c"), "00:16:3e:5e:6c:02"}
)

// AppVM is a domain behind the netvm: eth0, one default route, and the virtual DNS addresses in resolv.conf,
// which never change.
type AppVM struct {
	*Host
	Vif      string // the netvm's end of its cable
	Address  netip.Addr
	Address6 netip.Addr
}

// newAppVM makes an AppVM and does in the netvm what a vif script would do, but for the antispoof rules.
func newAppVM(p appPlan, netvm *NetVM) (*AppVM, error) {
	h, err := newHost(p.name)
	if err != nil {
		return nil, err
	}
	a := &AppVM{Host: h, Vif: fmt.Sprintf("vif%d.0", p.domid), Address: p.address, Address6: p.addr6}
	if err := cable(netvm.Host, a.Vif, vifMAC, h, "eth0", p.mac); err != nil {
		return nil, err
	}
	if err := a.setUplink(); err != nil {
		return nil, err
	}
	if err := a.setVif(netvm.Host, p); err != nil {
		return nil, err
	}
	var conf strings.Builder
	for _, v := range netvm.options.Virtual {
		fmt.Fprintf(&conf, "nameserver %s\n", v)
	}
	return a, h.ReplaceFile("/etc/resolv.conf", []byte(conf.String()))
}

// setUplink configures the AppVM's end: an address of its own, and everything through the gateway.
func (a *AppVM) setUplink() error {
	if err := a.addAddresses("eth0", netip.PrefixFrom(a.Address, 32), netip.PrefixFrom(a.Address6, 128)); err != nil {
		return err
	}
	for _, gw := range []netip.Addr{gateway, gateway6} {
		if err := a.addNeighbour("eth0", gw, vifMAC); err != nil {
			return err
		}
		everything := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		if gw.Is4() {
			everything = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		if err := a.addRoute("eth0", everything, gw, 0); err != nil {
			return err
		}
	}
	return nil
}

// setVif configures the netvm's end.
func (a *AppVM) setVif(netvm *Host, p appPlan) error {
	link, err := netvm.links.LinkByName(a.Vif)
	if err != nil {
		return fmt.Errorf("%s: find link %s: %w", netvm.Name, a.Vif, err)
	}
	if err := netvm.links.LinkSetGroup(link, vifGroup); err != nil {
		return fmt.Errorf("%s: put %s into group %d: %w", netvm.Name, a.Vif, vifGroup, err)
	}
	if err := netvm.addAddresses(a.Vif, netip.PrefixFrom(gateway, 32), netip.PrefixFrom(gateway6, 128)); err != nil {
		return err
	}
	for _, address := range []netip.Addr{a.Address, a.Address6} {
		if err := netvm.addNeighbour(a.Vif, address, p.mac); err != nil {
			return err
		}
		to := netip.PrefixFrom(address, address.BitLen())
		if err := netvm.addRoute(a.Vif, to, netip.Addr{}, metricBase-p.domid); err != nil {
			return err
		}
	}
	return nil
}

// addNeighbour adds a permanent neighbour, so that nobody has to ask for it by ARP or NDP.
func (h *Host) addNeighbour(link string, address netip.Addr, mac string) error {
	l, err := h.links.LinkByName(link)
	if err != nil {
		return fmt.Errorf("%s: find link %s: %w", h.Name, link, err)
	}
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return fmt.Errorf("%s: neighbour %s on %s: %w", h.Name, address, link, err)
	}
	neighbour := &netlink.Neigh{LinkIndex: l.Attrs().Index, State: unix.NUD_PERMANENT, IP: address.AsSlice(), HardwareAddr: hw}
	if err := h.links.NeighSet(neighbour); err != nil {
		return fmt.Errorf("%s: set neighbour %s on %s to %s: %w", h.Name, address, link, mac, err)
	}
	return nil
}
