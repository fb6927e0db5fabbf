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
	netvm    *NetVM
	Card     Card
	Vif      string // the netvm's end of its card
	Address  netip.Addr
	Address6 netip.Addr // the zero Addr = none
	Gateway  netip.Addr
}

// newAppVM makes an AppVM, not attached yet.
func newAppVM(p appPlan, netvm *NetVM) (*AppVM, error) {
	h, err := newHost(p.name)
	if err != nil {
		return nil, err
	}
	a := &AppVM{
		Host: h, netvm: netvm, Address: p.address, Address6: p.addr6, Gateway: gateway,
		Card: Card{DomID: p.domid, MAC: p.mac, IP: p.address.String() + " " + p.addr6.String(), Peer: h, PeerName: "eth0"},
	}
	a.Vif = a.Card.Name()
	var conf strings.Builder
	for _, v := range netvm.options.Virtual {
		fmt.Fprintf(&conf, "nameserver %s\n", v)
	}
	return a, h.ReplaceFile("/etc/resolv.conf", []byte(conf.String()))
}

// Again makes a newer domain with the addresses of an AppVM, not attached yet: the same AppVM, started again before the
// old one is gone.
func (l *Lab) Again(a *AppVM, domID int) (*AppVM, error) {
	plan := appPlan{fmt.Sprintf("%s-%d", a.Name, domID), domID, a.Address, a.Address6, a.Card.MAC}
	again, err := newAppVM(plan, l.NetVM)
	if err != nil {
		return nil, err
	}
	l.again = append(l.again, again)
	return again, nil
}

// Attach plugs the AppVM's card in and has the netvm bring it up, as the toolstack does when a domain starts.
func (a *AppVM) Attach(ctx context.Context) error {
	if err := a.netvm.AddCard(a.Card); err != nil {
		return err
	}
	if _, err := a.netvm.Hotplug(ctx, "online", a.Card); err != nil {
		return err
	}
	return a.setUplink(ctx)
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
	for _, own := range []struct{ address, gateway netip.Addr }{{a.Address, a.Gateway}, {a.Address6, gateway6}} {
		if !own.address.IsValid() {
			continue
		}
		if err := a.addAddresses("eth0", netip.PrefixFrom(own.address, own.address.BitLen())); err != nil {
			return err
		}
		if err := a.addNeighbour("eth0", own.gateway, VifMAC); err != nil {
			return err
		}
		if err := a.addDefaultRoute("eth0", own.gateway); err != nil {
			return err
		}
	}
	if err := a.awaitCarrier(ctx, "eth0"); err != nil {
		return err
	}
	return a.netvm.awaitCarrier(ctx, a.Vif)
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
