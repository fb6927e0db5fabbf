package lab

import (
	"context"
	"net/netip"

	"netvmd/internal/lab/fakebus"
	"netvmd/internal/netvm"
)

// StartFakeNetworkManager has NetworkManager played, offline at first. To kill it, Close it; then it may be started again.
func (d *Domain) StartFakeNetworkManager(ctx context.Context) (err error) {
	if d.FakeNM, err = fakebus.NewNetworkManager(d.bus); err != nil {
		return err
	}
	return d.FakeNM.Own(ctx)
}

// Uplink is an active connection over this network, of a connection type of NetworkManager's, as one that is played would have
// it: the addresses are those that the netvm has there.
func (n *Network) Uplink(id, kind string) fakebus.Uplink {
	return fakebus.Uplink{
		Uplink: netvm.Uplink{ID: id, Type: kind, Interface: n.Device, Gateway: n.Router.Addr(),
			Addresses: []netip.Prefix{netip.PrefixFrom(n.NetVM, n.Router.Bits())}},
		DNS: n.Resolvers[:2],
	}
}

// WiFi is an Uplink by Wi-Fi; ssid may be any bytes.
func (n *Network) WiFi(ssid string, strength uint8) fakebus.Uplink {
	u := n.Uplink("Home", "802-11-wireless")
	u.SSID, u.Strength = ssid, strength
	return u
}
