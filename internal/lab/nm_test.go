package lab

import (
	"context"
	"testing"

	godbus "github.com/godbus/dbus/v5"
)

// dnsOrder reads the servers of NetworkManager's DNS configuration, in its order.
func dnsOrder(ctx context.Context, t *testing.T, l *Lab) []string {
	t.Helper()
	conn, err := l.NetVM.Bus()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var v godbus.Variant
	err = conn.Object(nmName, nmPath+"/DnsManager").CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0,
		nmName+".DnsManager", "Configuration").Store(&v)
	if err != nil {
		t.Fatal(err)
	}
	var servers []string
	for _, entry := range v.Value().([]map[string]godbus.Variant) {
		servers = append(servers, entry["nameservers"].Value().([]string)...)
	}
	return servers
}

func equal(a []string, b ...string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestNetworkManagerListsTheResolversOfTheConnectionsThatAreUp(t *testing.T) {
	ctx, l := newLab(t)
	for _, step := range []struct {
		name    string
		command []string
		want    []string
	}{
		{"nothing is up", []string{"general", "status"}, nil},
		{"DHCP announces two", []string{"connection", "up", "home"}, []string{"192.0.2.53", "192.0.2.54"}},
		{"a VPN of negative priority comes first", []string{"connection", "up", "vpn"}, []string{"10.8.0.1", "192.0.2.53", "192.0.2.54"}},
		{"the VPN is gone again", []string{"connection", "down", "vpn"}, []string{"192.0.2.53", "192.0.2.54"}},
	} {
		if err := l.NetVM.NMCLI(ctx, step.command...); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := dnsOrder(ctx, t, l); !equal(got, step.want...) {
			t.Errorf("%s: resolvers %v, want %v", step.name, got, step.want)
		}
	}
}

func TestSetResolversReplacesThoseOfAStaticConnectionInOneStep(t *testing.T) {
	ctx, l := newLab(t)
	if err := l.NetVM.NMCLI(ctx, "connection", "up", "home-static"); err != nil {
		t.Fatal(err)
	}
	conn, err := l.NetVM.Bus()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// NetworkManager answers before it has done what Reapply asks; its signal tells when.
	signals := make(chan *godbus.Signal, 64)
	conn.Signal(signals)
	if err := conn.AddMatchSignalContext(ctx, godbus.WithMatchObjectPath(nmPath+"/DnsManager"),
		godbus.WithMatchMember("PropertiesChanged")); err != nil {
		t.Fatal(err)
	}
	if err := l.NetVM.SetResolvers(ctx, l.Home.Device, l.Home.Resolvers[2]); err != nil {
		t.Fatal(err)
	}
	for {
		got := dnsOrder(ctx, t, l)
		if equal(got, "192.0.2.55") {
			return
		}
		if !equal(got, "192.0.2.53", "192.0.2.54") {
			t.Fatalf("resolvers %v, neither the old nor the new ones", got)
		}
		select {
		case <-signals:
		case <-ctx.Done():
			t.Fatalf("resolvers %v, want 192.0.2.55", got)
		}
	}
}

func TestTheNetworkAnnouncesOtherResolversFromTheNextLeaseOn(t *testing.T) {
	ctx, l := newLab(t)
	if err := l.NetVM.NMCLI(ctx, "connection", "up", "office"); err != nil {
		t.Fatal(err)
	}
	if err := l.Office.Announce(ctx, l.Office.Resolvers[2]); err != nil {
		t.Fatal(err)
	}
	if err := l.NetVM.NMCLI(ctx, "connection", "up", "office"); err != nil {
		t.Fatal(err)
	}
	if got := dnsOrder(ctx, t, l); !equal(got, "198.51.100.55") {
		t.Errorf("resolvers %v, want 198.51.100.55", got)
	}
}

func TestNetworkManagerAndTheBusComeBackAfterTheyWereKilled(t *testing.T) {
	ctx, l := newLab(t)
	if err := l.NetVM.KillNetworkManager(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.NetVM.StartNetworkManager(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.NetVM.NMCLI(ctx, "connection", "up", "home"); err != nil {
		t.Fatal(err)
	}
	if err := l.NetVM.KillBus(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.NetVM.StartBus(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.NetVM.KillNetworkManager(ctx); err != nil { // it does not survive its bus in every version
		t.Fatal(err)
	}
	if err := l.NetVM.StartNetworkManager(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.NetVM.NMCLI(ctx, "connection", "up", "home"); err != nil {
		t.Fatal(err)
	}
}
