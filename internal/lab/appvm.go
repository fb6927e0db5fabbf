package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// VifMAC is the address that Xen gives to the backend end of every vif.
const VifMAC = "fe:ff:ff:ff:ff:ff"

// The ranges of domains' addresses, and the netvm's own address towards them. An address ends with a domain's number.
var (
	appVMs   = prefix("10.137.0.0/16")
	appVMs6  = prefix("fd09:24ef:4179::a89:0/112")
	gateway  = addr("10.137.0.6")
	gateway6 = addr("fd09:24ef:4179::a89:6")
)

// numbered are the addresses and the MAC that the toolstack gives to the domain with a number, 1 to 254.
func numbered(n int) (address, address6 netip.Addr, mac string) {
	last4, last6 := gateway.As4(), gateway6.As16()
	last4[3], last6[15] = byte(n), byte(n)
	return netip.AddrFrom4(last4), netip.AddrFrom16(last6), fmt.Sprintf("00:16:3e:5e:6c:%02x", n)
}

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

// AppVM is a domain behind a netvm: eth0, one default route, and the virtual DNS addresses in resolv.conf,
// which never change.
type AppVM struct {
	*Domain
	netvm    *NetVM
	Card     Card
	Vif      string // the netvm's end of its card
	Address  netip.Addr
	Address6 netip.Addr // the zero Addr = none
	Gateway  netip.Addr
	Gateway6 netip.Addr
}

// newAppVM makes an AppVM, not attached yet.
func newAppVM(p appPlan, netvm *NetVM) (*AppVM, error) {
	d, err := newDomain(p.name, Options{})
	if err != nil {
		return nil, err
	}
	return serve(d, p, netvm)
}

// serve makes a domain one that the netvm serves.
func serve(d *Domain, p appPlan, netvm *NetVM) (*AppVM, error) {
	a := &AppVM{
		Domain: d, netvm: netvm, Address: p.address, Address6: p.addr6, Gateway: netvm.Gateway, Gateway6: netvm.Gateway6,
		Card: Card{DomID: p.domid, MAC: p.mac, IP: p.address.String() + " " + p.addr6.String(), Peer: d.Host, PeerName: "eth0"},
	}
	a.Vif = a.Card.Name()
	return a, d.ReplaceFile("/etc/resolv.conf", nameservers(netvm.resolvConf))
}

// nameservers is a resolv.conf.
func nameservers(list []netip.Addr) []byte {
	var conf strings.Builder
	for _, v := range list {
		fmt.Fprintf(&conf, "nameserver %s\n", v)
	}
	return []byte(conf.String())
}

// AppVM makes one more AppVM, behind the netvm or a proxy, not attached yet. Its number, 1 to 254, is its domain's and the
// end of its addresses.
func (l *Lab) AppVM(name string, number int, behind *NetVM) (*AppVM, error) {
	address, address6, mac := numbered(number)
	return l.addAppVM(appPlan{name, number, address, address6, mac}, behind)
}

func (l *Lab) addAppVM(p appPlan, behind *NetVM) (*AppVM, error) {
	a, err := newAppVM(p, behind)
	if err == nil {
		l.more = append(l.more, a)
	}
	return a, err
}

// Again makes a newer domain with the addresses of an AppVM, not attached yet: the same AppVM, started again before the
// old one is gone.
func (l *Lab) Again(a *AppVM, domID int) (*AppVM, error) {
	plan := appPlan{fmt.Sprintf("%s-%d", a.Name, domID), domID, a.Address, a.Address6, a.Card.MAC}
	return l.addAppVM(plan, a.netvm)
}

// Attach plugs the AppVM's card in, has the netvm bring it up, as the toolstack does when a domain starts, and configures
// the AppVM's end.
func (a *AppVM) Attach(ctx context.Context) error {
	if err := a.Plug(ctx); err != nil {
		return err
	}
	return a.setUplink(ctx)
}

// Plug is the toolstack's part of Attach: the AppVM's end is not configured.
func (a *AppVM) Plug(ctx context.Context) error {
	if err := a.netvm.AddCard(a.Card); err != nil {
		return err
	}
	_, err := a.netvm.Hotplug(ctx, "online", a.Card)
	return err
}

// Detach takes the card away, and then tells the netvm: that is Xen's order.
func (a *AppVM) Detach(ctx context.Context) error {
	if err := a.netvm.RemoveCard(a.Card); err != nil {
		return err
	}
	if _, err := a.netvm.Hotplug(ctx, "offline", a.Card); err != nil {
		return err
	}
	a.netvm.ForgetCard(a.Card)
	return nil
}

// setUplink configures the AppVM's end: an address of its own, and everything through the gateway.
func (a *AppVM) setUplink(ctx context.Context) error {
	for _, own := range []struct{ address, gateway netip.Addr }{{a.Address, a.Gateway}, {a.Address6, a.Gateway6}} {
		if !own.address.IsValid() {
			continue
		}
		if err := a.addUplink("eth0", own.address, own.gateway); err != nil {
			return err
		}
	}
	return a.AwaitCard(ctx)
}

// AwaitCard waits until both ends of the card carry.
func (a *AppVM) AwaitCard(ctx context.Context) error {
	if err := a.awaitCarrier(ctx, "eth0"); err != nil {
		return err
	}
	return a.netvm.awaitCarrier(ctx, a.Vif)
}

// addUplink gives a link an address, and sends everything through a gateway that answers no ARP.
func (h *Host) addUplink(link string, address, gateway netip.Addr) error {
	if err := h.addAddresses(link, netip.PrefixFrom(address, address.BitLen())); err != nil {
		return err
	}
	if err := h.addNeighbour(link, gateway, VifMAC); err != nil {
		return err
	}
	return h.addDefaultRoute(link, gateway)
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
