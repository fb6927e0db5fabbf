package doctor

import (
	"context"
	"errors"
	"slices"
	"strings"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
)

// NetworkManager's names on the bus.
const (
	nmName   = "org.freedesktop.NetworkManager"
	nmPath   = godbus.ObjectPath("/org/freedesktop/NetworkManager")
	nmDevice = nmName + ".Device"
	// nmUnknownDevice is its error for a device that it does not know.
	nmUnknownDevice = nmName + ".UnknownDevice"
)

// networkManager is whether it runs, and whether somebody needs it.
type networkManager struct {
	running, served bool   // another netvm serves this one
	source          string // dns.source
}

func readNetworkManager(ctx context.Context, m *machine) (networkManager, error) {
	running, err := m.owned(ctx, nmName)
	// Without netvmd nobody says who serves this domain; that it does not run is another finding.
	status, unknown := m.status()
	return networkManager{running, unknown == nil && status.Served, string(m.conf.DNS.Source)}, err
}

func (n networkManager) judge() finding {
	const start = "Run: systemctl start NetworkManager"
	switch {
	case n.running:
		return fine("it runs")
	case n.source == "networkmanager":
		return fail("it does not run, and dns.source is \"networkmanager\"", start)
	case n.served:
		return fine("it does not run, and need not: another netvm serves this one")
	}
	return warn("it does not run: uplinks are not shown, and resolvers come from elsewhere", start)
}

// internet is how far the uplink leads.
type internet struct {
	state  netvm.State
	portal string // the address that leads to a captive portal
}

func readInternet(_ context.Context, m *machine) (internet, error) {
	status, err := m.status()
	return internet{status.State, status.PortalURL}, err
}

func (i internet) judge() finding {
	switch {
	case i.state == netvm.Portal && i.portal != "":
		return warn("a captive portal answers instead of the Internet", "Log in with a browser, in the netvm or an AppVM: "+i.portal)
	case i.state == netvm.Portal:
		return warn("a captive portal answers instead of the Internet", "Open any http page in a browser, and log in")
	case i.state == netvm.Limited:
		return warn("the Internet is not reached", "Look what the network is told to do: nmcli device show")
	}
	return fine("netvmd says: %s", i.state)
}

// managed are the vifs that NetworkManager configures.
type managed []string

func readManaged(ctx context.Context, m *machine) (managed, error) {
	running, err := m.owned(ctx, nmName)
	if err != nil || !running {
		return nil, err
	}
	names, err := m.vifs()
	var out managed
	for _, name := range names {
		is, err := m.manages(ctx, name)
		if err != nil {
			return nil, err
		}
		if is {
			out = append(out, name)
		}
	}
	return out, err
}

// manages asks NetworkManager about a device. One that it does not know it does not configure.
func (m *machine) manages(ctx context.Context, device string) (is bool, err error) {
	var path godbus.ObjectPath
	err = m.call(ctx, nmName, nmPath, nmName+".GetDeviceByIpIface", &path, device)
	var unknown godbus.Error
	if errors.As(err, &unknown) && unknown.Name == nmUnknownDevice {
		return false, nil
	}
	if err == nil {
		err = m.property(ctx, nmName, path, nmDevice, "Managed", &is)
	}
	return is, err
}

func (v managed) judge() finding {
	if len(v) > 0 {
		return fail("it manages "+strings.Join(v, ", ")+", and may take their addresses and routes away",
			"Install netvmd again: /usr/lib/NetworkManager/conf.d/30-netvm-vifs.conf keeps it from them; then run: nmcli general reload")
	}
	return fine("it manages no vif")
}

// resolved is whether it runs, and whether somebody needs it.
type resolved struct {
	running bool
	stub    bool   // resolv.conf names it
	source  string // dns.source
}

// stubs are where systemd-resolved listens (systemd-resolved.service(8)).
var stubs = []string{"127.0.0.53", "127.0.0.54"}

func readResolved(ctx context.Context, m *machine) (resolved, error) {
	r := resolved{source: string(m.conf.DNS.Source)}
	text, err := m.read(m.conf.DNS.ResolvConf)
	if err != nil {
		return r, err
	}
	for _, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		r.stub = r.stub || len(words) > 1 && words[0] == "nameserver" && slices.Contains(stubs, words[1])
	}
	r.running, err = m.owned(ctx, "org.freedesktop.resolve1")
	return r, err
}

func (r resolved) judge() finding {
	const start = "Run: systemctl start systemd-resolved"
	switch {
	case r.running:
		return fine("it runs: AppVM DNS follows what it knows, unless dns.source says otherwise")
	case r.source == "resolved":
		return fail("it does not run, and dns.source is \"resolved\"", start)
	case r.stub:
		return warn("resolv.conf leads to it, and it does not run: the netvm itself finds no names (AppVMs do)", start)
	}
	return fine("it does not run, and nothing needs it")
}
