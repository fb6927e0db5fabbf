package packaging_test

import (
	"strings"
	"testing"

	"netvmd/dbus"
)

// tunnels is a machine in which the examples run for real. The interfaces of their VPNs are veths: any device does.
type tunnels struct {
	*machine
	events <-chan dbus.Event
}

func bootTunnels(t *testing.T) *tunnels {
	m := boot(t)
	m.followsDevices()
	return &tunnels{m, dbus.Watch(m.ctx)}
}

// leadsNow fails unless the kernel sends AppVM DNS to the address already.
func (v *tunnels) leadsNow(t *testing.T, address string) {
	t.Helper()
	out, err := v.run("nft", "list", "map", "ip", "netvmd", "dns-targets")
	if err != nil || !strings.Contains(out, "10.139.1.1 : "+address) || !strings.Contains(out, "10.139.1.2 : "+address) {
		t.Fatalf("AppVM DNS does not go to %s: %v: %s", address, err, out)
	}
}

// awaitUplink waits until netvmd says that AppVM DNS goes to the uplink's resolver.
func (v *tunnels) awaitUplink(t *testing.T) {
	t.Helper()
	for e := range v.events {
		if targets := e.Status.DNSTargets; len(targets) == 2 && targets[0].Resolver.Addr.String() == uplinks {
			return
		}
	}
	t.Fatal("AppVM DNS did not come to the uplink's resolver")
}

// device makes a network device.
func (v *tunnels) device(name string) {
	v.shell("ip link add " + name + " type veth peer name far-" + name)
}

const (
	uplinks       = "192.0.2.1" // the resolver without a VPN
	openVPNPushed = `script_type=up dev=tun-0 foreign_option_1="dhcp-option DNS 10.8.0.1" /usr/share/doc/netvmd/examples/openvpn-dns`
)

func TestVPNExamplesUnderSystemd(t *testing.T) {
	v := bootTunnels(t)
	v.awaitUplink(t)
	up, down := hooks(t, "PostUp")[0], hooks(t, "PreDown")[0]

	t.Run("WireGuard's override is in force once it is up, and goes before it is down", func(t *testing.T) {
		v.device("wg0")
		v.shell(up)
		v.leadsNow(t, "10.64.0.1")
		v.shell(down)
		v.awaitUplink(t)
	})
	t.Run("it goes with the device when nobody runs PreDown, which may be run all the same", func(t *testing.T) {
		v.shell(up)
		v.leadsNow(t, "10.64.0.1")
		v.shell("ip link del wg0")
		v.awaitUplink(t)
		v.shell(down)
	})
	t.Run("OpenVPN's override is in force once it is up", func(t *testing.T) {
		v.device("tun-0")
		v.shell(openVPNPushed)
		v.leadsNow(t, "10.8.0.1")
	})
	t.Run("a restarted netvmd has it from its start", func(t *testing.T) {
		v.shell("systemctl restart netvmd.service")
		v.leadsNow(t, "10.8.0.1")
	})
	t.Run("it goes when OpenVPN dies", func(t *testing.T) {
		v.shell("ip link del tun-0")
		v.awaitUplink(t)
	})
	t.Run("OpenVPN is back at once, and goes in order", func(t *testing.T) {
		v.device("tun-0")
		v.shell(openVPNPushed)
		v.shell("ip link del tun-0")
		v.device("tun-0")
		v.shell(openVPNPushed)
		v.leadsNow(t, "10.8.0.1")
		v.shell("script_type=down dev=tun-0 /usr/share/doc/netvmd/examples/openvpn-dns")
		v.awaitUplink(t)
	})
}
