package fakebus

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
)

const (
	nmName    = "org.freedesktop.NetworkManager"
	nmPath    = godbus.ObjectPath("/org/freedesktop/NetworkManager")
	active    = nmName + ".Connection.Active"
	device    = nmName + ".Device"
	nothing   = godbus.ObjectPath("/") // what NetworkManager gives for an object that there is not
	activated = uint32(2)              // NMActiveConnectionState
)

// Uplink is an active connection as NetworkManager has it. The bytes of SSID are given out as they are.
type Uplink struct {
	netvm.Uplink
	DNS         []netip.Addr
	DNSPriority int32 // 0 = 100, as that of a usual connection is
}

// Situation is all that the stand-in says.
type Situation struct {
	State   netvm.State // "" = Online with uplinks, Offline without
	Uplinks []Uplink    // the primary first
	// CheckURI is ConnectivityCheckUri, which is there in every state; "" = none is configured.
	CheckURI string
}

// NetworkManager is a stand-in for org.freedesktop.NetworkManager, as far as netvmd reads it: the states, the active
// connections with their devices, access points and addresses, and DnsManager. It configures nothing: devices, addresses
// and routes are only said to be there.
type NetworkManager struct {
	*Service
	numbers map[string][]string // by kind, what its objects are known by: they keep their number while the stand-in lives
}

// NewNetworkManager connects a stand-in that is offline and does not have its name yet: see Own.
func NewNetworkManager(address string) (*NetworkManager, error) {
	s, err := New(nmName, address)
	if err != nil {
		return nil, err
	}
	n := &NetworkManager{Service: s, numbers: map[string][]string{}}
	n.replace(n.objects(Situation{}))
	return n, nil
}

// Show makes a situation so, and announces what is different in the order of NetworkManager: details first, itself next and
// DNS last. It must not be called by two goroutines at once.
func (n *NetworkManager) Show(_ context.Context, s Situation) error {
	changed := n.replace(n.objects(s))
	paths := make([]godbus.ObjectPath, 0, len(changed))
	for path := range changed {
		paths = append(paths, path)
	}
	slices.SortFunc(paths, func(a, b godbus.ObjectPath) int { return cmp.Or(cmp.Compare(turn(a), turn(b)), cmp.Compare(a, b)) })
	for _, path := range paths {
		for iface, members := range changed[path] {
			values := map[string]godbus.Variant{}
			for property, value := range members {
				values[property] = godbus.MakeVariant(value)
			}
			if err := n.announce(path, iface, values); err != nil {
				return err
			}
		}
	}
	return nil
}

// turn is when an object's changes are announced.
func turn(path godbus.ObjectPath) int {
	switch path {
	case nmPath:
		return 1
	case nmPath + "/DnsManager":
		return 2
	}
	return 0
}

// objects are all the objects of a situation.
func (n *NetworkManager) objects(s Situation) Values {
	v := Values{}
	connections := []godbus.ObjectPath{}
	dns := []map[string]godbus.Variant{}
	for _, u := range s.Uplinks {
		connections = append(connections, n.connection(v, u))
		if len(u.DNS) > 0 {
			dns = append(dns, u.dns())
		}
	}
	slices.SortStableFunc(dns, func(a, b map[string]godbus.Variant) int {
		return cmp.Compare(a["priority"].Value().(int32), b["priority"].Value().(int32))
	})
	state, connectivity := s.said()
	primary := nothing
	if len(connections) > 0 {
		primary = connections[0]
	}
	for property, value := range map[string]any{
		"State": state, "Connectivity": connectivity, "Startup": false, "ConnectivityCheckUri": s.CheckURI,
		"PrimaryConnection": primary, "ActiveConnections": connections,
	} {
		v.Put(nmPath, nmName, property, value)
	}
	v.Put(nmPath+"/DnsManager", nmName+".DnsManager", "Configuration", dns)
	return v
}

// said is a state in NetworkManager's words: NMState and NMConnectivityState of its nm-dbus-interface.h.
func (s Situation) said() (state, connectivity uint32) {
	const disconnected, connecting, global = 20, 40, 70
	const none, portal, limited, full = 1, 2, 3, 4
	usual := netvm.Offline
	if len(s.Uplinks) > 0 {
		usual = netvm.Online
	}
	switch cmp.Or(s.State, usual) {
	case netvm.Connecting:
		return connecting, none
	case netvm.Limited:
		return global, limited
	case netvm.Portal:
		return global, portal
	case netvm.Online:
		return global, full
	}
	return disconnected, none
}

// path is where an object of a kind is; what it is known by gives it its number.
func (n *NetworkManager) path(kind, known string) godbus.ObjectPath {
	if !slices.Contains(n.numbers[kind], known) {
		n.numbers[kind] = append(n.numbers[kind], known)
	}
	return godbus.ObjectPath(fmt.Sprintf("%s/%s/%d", nmPath, kind, slices.Index(n.numbers[kind], known)+1))
}

// connection adds an active connection and what belongs to it.
func (n *NetworkManager) connection(v Values, u Uplink) godbus.ObjectPath {
	at, on := n.path("ActiveConnection", u.ID), n.path("Devices", u.Interface)
	point := nothing
	if u.Type == "802-11-wireless" {
		point = n.path("AccessPoint", u.SSID) // another network is another access point
		v.Put(point, nmName+".AccessPoint", "Ssid", []byte(u.SSID))
		v.Put(point, nmName+".AccessPoint", "Strength", u.Strength)
	}
	for property, value := range map[string]any{
		"Id": u.ID, "Type": u.Type, "State": activated, "Vpn": u.VPN, "Devices": []godbus.ObjectPath{on}, "SpecificObject": point,
		"Ip4Config": n.config(v, u, "IP4Config", netip.Addr.Is4), "Ip6Config": n.config(v, u, "IP6Config", netip.Addr.Is6),
	} {
		v.Put(at, active, property, value)
	}
	metered := uint32(4) // NM_METERED_GUESS_NO
	if u.Metered {
		metered = 3 // NM_METERED_GUESS_YES
	}
	for property, value := range map[string]any{
		"DeviceType": uint32(1), "Interface": u.Interface, "IpInterface": u.Interface, "Metered": metered,
	} {
		v.Put(on, device, property, value)
	}
	return at
}

// config adds the addresses of one family.
func (n *NetworkManager) config(v Values, u Uplink, kind string, family func(netip.Addr) bool) godbus.ObjectPath {
	data := []map[string]godbus.Variant{}
	for _, a := range u.Addresses {
		if family(a.Addr()) {
			data = append(data, map[string]godbus.Variant{
				"address": godbus.MakeVariant(a.Addr().String()), "prefix": godbus.MakeVariant(uint32(a.Bits())),
			})
		}
	}
	if len(data) == 0 {
		return nothing
	}
	gateway := ""
	if u.Gateway.IsValid() && family(u.Gateway) {
		gateway = u.Gateway.String()
	}
	path := n.path(kind, u.ID)
	v.Put(path, nmName+"."+kind, "AddressData", data)
	v.Put(path, nmName+"."+kind, "Gateway", gateway)
	return path
}

// dns is an entry of DnsManager.Configuration.
func (u Uplink) dns() map[string]godbus.Variant {
	const usual = 100 // nm-settings(5), ipv4.dns-priority
	servers := make([]string, len(u.DNS))
	for i, a := range u.DNS {
		servers[i] = a.String()
	}
	return map[string]godbus.Variant{
		"nameservers": godbus.MakeVariant(servers), "interface": godbus.MakeVariant(u.Interface),
		"priority": godbus.MakeVariant(cmp.Or(u.DNSPriority, usual)), "vpn": godbus.MakeVariant(u.VPN),
	}
}
