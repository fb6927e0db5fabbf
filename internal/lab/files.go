package lab

import (
	"fmt"
	"strconv"
	"strings"
)

// nmConfig keeps NetworkManager away from vifs and from devices that nobody gave a connection, and from
// asking polkit, which is not there. It looks how far it gets only when it is told to, and when a connection comes up.
func (d *Domain) nmConfig() string {
	check := "enabled=false\n"
	if d.options.Portal {
		check = fmt.Sprintf("enabled=true\nuri=%s\ninterval=3600\n", portalHost+portalPath)
	}
	return fmt.Sprintf(nmBasics, d.nmDir()) + check
}

const nmBasics = `[main]
plugins=keyfile
dhcp=internal
no-auto-default=*
auth-polkit=false

[keyfile]
path=%s
unmanaged-devices=interface-name:vif*

[logging]
level=INFO

[connectivity]
`

// dhcpConnection is a connection that takes addresses and resolvers from the network.
func dhcpConnection(s site) string {
	return fmt.Sprintf(`[connection]
id=%s
type=ethernet
interface-name=%s
autoconnect=false

[ipv4]
method=auto
may-fail=false

[ipv6]
method=disabled
`, s.name, s.device)
}

// staticConnection is a connection whose address and resolvers the user wrote down. Unlike with DHCP, a
// Reapply of it changes the resolvers without a moment in which there are none.
func staticConnection(s site) string {
	return fmt.Sprintf(`[connection]
id=%s-static
type=ethernet
interface-name=%s
autoconnect=false

[ipv4]
method=manual
address1=%s/%d,%s
dns=%s;%s;

[ipv6]
method=disabled
`, s.name, s.device, s.netvm, s.prefix.Bits(), s.prefix.Addr(), s.resolvers[0], s.resolvers[1])
}

// vpnConnection stands for a VPN that takes DNS for itself: its negative priority excludes other resolvers.
func vpnConnection(s site) string {
	return fmt.Sprintf(`[connection]
id=%s
type=ethernet
interface-name=%s
autoconnect=false

[ipv4]
method=manual
address1=%s/%d
never-default=true
dns=%s;
dns-priority=-50

[ipv6]
method=disabled
`, s.name, s.device, s.netvm, s.prefix.Bits(), s.resolvers[0])
}

// servedConfig is the netvmd.toml of a domain that is no netvm, which has its settings from the store that runs.
func (d *Domain) servedConfig() string {
	return fmt.Sprintf(`runtime_dir = %q
state_dir = %q

[store]
xenstore_path = %q
qubesdb_socket = %q

%s
`, d.RuntimeDir(), d.StateDir(), d.XenStoreSocket(), d.QubesDBSocket(), d.options.Config)
}

// netvmdConfig is the lab's netvmd.toml.
func (v *NetVM) netvmdConfig() string {
	virtual := make([]string, len(v.options.Virtual))
	for i, a := range v.options.Virtual {
		virtual[i] = strconv.Quote(a.String())
	}
	backend := string(v.options.Backend)
	if strings.HasPrefix(backend, "iptables") {
		backend = "iptables"
	}
	gateway, gateway6 := v.Gateway.String(), v.Gateway6.String()
	store := "none" // that of the machine that the lab is on is not the lab's
	if v.options.QubesDB != nil {
		store = "qubesdb"
	}
	if v.options.QubesDB[netvmGateway] != "" {
		gateway, gateway6 = "", ""
	}
	return fmt.Sprintf(`runtime_dir = %q
state_dir = %q

[dns]
virtual = [%s]

[firewall]
backend = %q

[vif]
gateway = %q
gateway6 = %q

[store]
kind = %q
xenstore_path = %q
qubesdb_socket = %q

[hooks]
try_restart_units = []
try_reload_units = []

%s
`, v.RuntimeDir(), v.StateDir(), strings.Join(virtual, ", "), backend, gateway, gateway6, store, v.XenStoreSocket(), v.QubesDBSocket(),
		v.options.Config)
}
