package nmhook

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
)

// uplinksTimeout bounds one read of all uplinks, some twenty properties for each.
const uplinksTimeout = 5 * time.Second

// noObject is what NetworkManager gives for an object that there is not.
const noObject = godbus.ObjectPath("/")

// wifiType is NetworkManager's connection type of Wi-Fi, nm-settings(5).
const wifiType = "802-11-wireless"

func (s *session) uplinksReader() *reader {
	return &reader{board: s.board, log: s.log, source: sourceUplinks, timeout: uplinksTimeout,
		read: s.readUplinks, known: &s.nm.uplinks}
}

// survey is what one walk through NetworkManager's objects found.
type survey struct {
	state   netvm.State
	uplinks []netvm.Uplink
	devices map[string]godbus.ObjectPath // by interface
	points  []godbus.ObjectPath
	bad     []string
}

// readUplinks reads the state and every active connection.
func (s *session) readUplinks(ctx context.Context) (reading, error) {
	if s.owner(nmName) == "" {
		return reading{change: s.running, running: s.running}, nil
	}
	found, err := ask(ctx, "its uplinks", walkNetworkManager)
	if isMalformed(err) {
		return reading{change: s.running, running: s.running, malformed: lines(err)}, nil
	}
	if err != nil {
		return reading{}, err
	}
	for i := range found.uplinks {
		up := &found.uplinks[i]
		if up.Metered, err = s.metered(ctx, found.devices[up.Interface]); err != nil {
			return reading{}, err
		}
	}
	portal, notes, err := s.portalURL(ctx, found.state)
	if err != nil {
		return reading{}, err
	}
	if err := s.followPoints(ctx, found.points); err != nil {
		return reading{}, err
	}
	change := func(v *netvm.View) {
		v.State, v.PortalURL, v.Uplinks = found.state, portal, found.uplinks
		s.running(v)
	}
	return reading{change: change, running: s.running, malformed: found.bad, notes: notes}, nil
}

// metered reads a device's Metered, which the library does not offer.
func (s *session) metered(ctx context.Context, device godbus.ObjectPath) (bool, error) {
	if device == "" {
		return false, nil
	}
	value, err := s.property(ctx, nmName, device, nmName+".Device", "Metered")
	if isVanished(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	metered, _ := value.Value().(uint32) // anything else means: not known to be metered
	return nm.NmMetered(metered) == nm.NmMeteredYes || nm.NmMetered(metered) == nm.NmMeteredGuessYes, nil
}

// walkNetworkManager runs inside ask.
func walkNetworkManager(ctx context.Context) (survey, error) {
	found := survey{devices: map[string]godbus.ObjectPath{}}
	manager, err := nm.NewNetworkManager()
	if err != nil {
		return found, err
	}
	state, err := manager.GetPropertyState()
	if err != nil {
		return found, fmt.Errorf("property State: %w", err)
	}
	connectivity, err := manager.GetPropertyConnectivity()
	if err != nil {
		return found, fmt.Errorf("property Connectivity: %w", err)
	}
	found.state = stateOf(state, connectivity)
	primary, err := manager.GetPropertyPrimaryConnection()
	if err != nil {
		return found, fmt.Errorf("PrimaryConnection: %w", err)
	}
	connections, err := manager.GetPropertyActiveConnections()
	if err != nil {
		return found, fmt.Errorf("ActiveConnections: %w", err)
	}
	// The primary first; without one its path is "/", which no connection has.
	slices.SortStableFunc(connections, func(a, b nm.ActiveConnection) int {
		return cmp.Compare(notPrimary(a, primary), notPrimary(b, primary))
	})
	for _, connection := range connections {
		if err := ctx.Err(); err != nil {
			return found, err
		}
		if err := found.add(connection); err != nil && !isVanished(err) {
			return found, fmt.Errorf("%s: %w", connection.GetPath(), err)
		}
	}
	return found, nil
}

func notPrimary(c, primary nm.ActiveConnection) int {
	if c.GetPath() == primary.GetPath() {
		return 0
	}
	return 1
}

// stateOf maps NetworkManager's State and Connectivity (NMState and NMConnectivityState of its nm-dbus-interface.h).
func stateOf(state nm.NmState, connectivity nm.NmConnectivity) netvm.State {
	switch state {
	case nm.NmStateConnecting:
		return netvm.Connecting
	case nm.NmStateAsleep, nm.NmStateDisconnected, nm.NmStateDisconnecting:
		return netvm.Offline
	}
	switch {
	case connectivity == nm.NmConnectivityPortal:
		return netvm.Portal
	case state != nm.NmStateConnectedGlobal:
		return netvm.Limited
	case connectivity == nm.NmConnectivityNone, connectivity == nm.NmConnectivityLimited:
		return netvm.Limited
	default: // full, or unknown because nobody checks
		return netvm.Online
	}
}

// add reads one active connection, if it is an uplink.
func (f *survey) add(c nm.ActiveConnection) error {
	state, err := c.GetPropertyState()
	if err != nil || state != nm.NmActiveConnectionStateActivated {
		return err
	}
	var up netvm.Uplink
	if up.Type, err = c.GetPropertyType(); err != nil || up.Type == "loopback" {
		return err
	}
	if up.ID, err = c.GetPropertyID(); err != nil {
		return err
	}
	if up.VPN, err = c.GetPropertyVPN(); err != nil {
		return err
	}
	up.ID, up.Type = strings.ToValidUTF8(up.ID, "\uFFFD"), strings.ToValidUTF8(up.Type, "\uFFFD")
	if err := f.addresses(c, &up); err != nil {
		return err
	}
	device, err := f.device(c, &up)
	if err != nil || isVif(up.Interface) {
		return err
	}
	if up.Type == wifiType {
		if err := f.wifi(c, &up); err != nil {
			return err
		}
	}
	if device != "" {
		f.devices[up.Interface] = device
	}
	f.uplinks = append(f.uplinks, up)
	return nil
}

// isVif tells whether an interface is an AppVM's: NetworkManager may show one as connected from outside.
func isVif(name string) bool {
	var domid, devid uint
	n, err := fmt.Sscanf(name, "vif%d.%d", &domid, &devid)
	return err == nil && n == 2
}

// device finds the interface that carries IP.
func (f *survey) device(c nm.ActiveConnection, up *netvm.Uplink) (godbus.ObjectPath, error) {
	devices, err := c.GetPropertyDevices()
	if err != nil || len(devices) == 0 {
		return "", err
	}
	if up.Interface, err = devices[0].GetPropertyIpInterface(); err != nil {
		return "", err
	}
	if up.Interface == "" {
		if up.Interface, err = devices[0].GetPropertyInterface(); err != nil {
			return "", err
		}
	}
	if !isInterfaceName(up.Interface) {
		f.bad = append(f.bad, fmt.Sprintf("NetworkManager's connection %s: interface %s cannot exist", quote(up.ID), quote(up.Interface)))
		up.Interface = ""
	}
	if up.Type == "vpn" && len(up.Addresses) > 0 {
		// A plugin's VPN names the device below it; its own is the one that has its address.
		if name := interfaceWith(up.Addresses[0].Addr()); name != "" {
			up.Interface = name
		}
	}
	return devices[0].GetPath(), nil
}

func interfaceWith(addr netip.Addr) string {
	links, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, link := range links {
		addrs, err := link.Addrs()
		if err != nil {
			continue // the link is gone meanwhile
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == addr {
				return link.Name
			}
		}
	}
	return ""
}

// addresses reads the connection's IP configurations.
func (f *survey) addresses(c nm.ActiveConnection, up *netvm.Uplink) error {
	v4, err := c.GetPropertyIP4Config()
	if err != nil {
		return err
	}
	if v4 != nil {
		data, err := v4.GetPropertyAddressData()
		if err != nil {
			return err
		}
		for _, d := range data {
			f.address(up, d.Address, d.Prefix)
		}
		gateway, err := v4.GetPropertyGateway()
		if err != nil {
			return err
		}
		f.gateway(up, gateway)
	}
	v6, err := c.GetPropertyIP6Config()
	if err != nil || v6 == nil {
		return err
	}
	data, err := v6.GetPropertyAddressData()
	if err != nil {
		return err
	}
	for _, d := range data {
		f.address(up, d.Address, d.Prefix)
	}
	gateway, err := v6.GetPropertyGateway()
	if err != nil {
		return err
	}
	f.gateway(up, gateway)
	return nil
}

func (f *survey) address(up *netvm.Uplink, text string, bits uint32) {
	addr, err := netip.ParseAddr(text)
	if err != nil || bits > uint32(addr.BitLen()) {
		f.bad = append(f.bad, fmt.Sprintf("NetworkManager's connection %s: %s/%d is not an address", quote(up.ID), quote(text), bits))
		return
	}
	up.Addresses = append(up.Addresses, netip.PrefixFrom(addr.WithZone(""), int(bits)))
}

// gateway keeps the first that there is, IPv4's before IPv6's.
func (f *survey) gateway(up *netvm.Uplink, text string) {
	if text == "" || up.Gateway.IsValid() {
		return
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		f.bad = append(f.bad, fmt.Sprintf("NetworkManager's connection %s: gateway %s is not an address", quote(up.ID), quote(text)))
		return
	}
	up.Gateway = addr
}

// wifi reads the access point in use, which NetworkManager names as the connection's specific object.
func (f *survey) wifi(c nm.ActiveConnection, up *netvm.Uplink) error {
	point, err := c.GetPropertySpecificObject()
	if err != nil || point.GetPath() == noObject {
		return err
	}
	ssid, err := point.GetPropertySSID()
	if err != nil {
		return err
	}
	if up.Strength, err = point.GetPropertyStrength(); err != nil {
		return err
	}
	up.SSID = strings.ToValidUTF8(ssid, "\uFFFD")
	f.points = append(f.points, point.GetPath())
	return nil
}
