package nmhook

import (
	"context"
	"net/netip"
	"os"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/lab/fakebus"
	"netvmd/internal/netvm"
)

// fakeService is a stand-in for NetworkManager, resolved or logind, whose failures are the test's.
type fakeService struct {
	t *testing.T
	*fakebus.Service
}

func fake(t *testing.T, name string) *fakeService {
	t.Helper()
	s, err := fakebus.New(name, busAddress())
	return faked(t, s, err)
}

func faked(t *testing.T, s *fakebus.Service, err error) *fakeService {
	t.Helper()
	must(t, err)
	t.Cleanup(func() { _ = s.Close() }) // the bus may be gone before
	return &fakeService{t, s}
}

// busAddress is where the test's bus is.
func busAddress() string { return os.Getenv("DBUS_SYSTEM_BUS_ADDRESS") }

// patiently is a context that ends a test which hangs.
func patiently(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func (f *fakeService) connect() { must(f.t, f.Connect()) }
func (f *fakeService) own()     { must(f.t, f.Own(patiently(f.t))) }
func (f *fakeService) disown()  { must(f.t, f.Disown(patiently(f.t))) }

func (f *fakeService) set(path godbus.ObjectPath, iface, property string, value any) {
	f.Set(path, iface, property, value)
}

func (f *fakeService) change(path godbus.ObjectPath, iface, property string, value any) {
	f.t.Helper()
	must(f.t, f.Change(path, iface, property, value))
}

func (f *fakeService) invalidate(path godbus.ObjectPath, iface, property string) {
	f.t.Helper()
	must(f.t, f.Invalidate(path, iface, property))
}

func (f *fakeService) emit(path godbus.ObjectPath, signal string, body ...any) {
	f.t.Helper()
	must(f.t, f.Emit(path, signal, body...))
}

func (f *fakeService) hush() (speak func()) { return f.Hush() }

// nmFake is a NetworkManager with one Ethernet uplink, whose own name is taken by the caller.
func nmFake(t *testing.T) *fakeService {
	t.Helper()
	n, err := fakebus.NewNetworkManager(busAddress())
	must(t, err)
	must(t, n.Show(patiently(t), fakebus.Situation{Uplinks: []fakebus.Uplink{{
		Uplink: netvm.Uplink{ID: "uplink eth0", Type: "802-3-ethernet", Interface: "eth0",
			Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/24")}, Gateway: netip.MustParseAddr("192.0.2.254")},
		DNS: addrs("192.0.2.1"),
	}}}))
	return faked(t, n.Service, nil)
}

const (
	acPath     = nmPath + "/ActiveConnection/1"
	devicePath = nmPath + "/Devices/1"
	ip4Path    = nmPath + "/IP4Config/1"
)

func dnsConfig(iface string, servers ...string) []map[string]godbus.Variant {
	return []map[string]godbus.Variant{{
		"nameservers": godbus.MakeVariant(servers),
		"interface":   godbus.MakeVariant(iface),
		"priority":    godbus.MakeVariant(int32(100)),
		"vpn":         godbus.MakeVariant(false),
	}}
}

type resolvedEntry struct {
	Link, Family int32
	Addr         []byte
}

func resolvedFake(t *testing.T, entries ...resolvedEntry) *fakeService {
	t.Helper()
	f := fake(t, resolvedName)
	f.set(resolvedPath, resolvedIface, "DNS", entries)
	return f
}

// sendAsStranger addresses a PropertiesChanged to everyone on the bus, over a connection that owns no name, and
// returns when the bus has delivered it.
func sendAsStranger(t *testing.T, path godbus.ObjectPath, iface, property string, value any) {
	t.Helper()
	conn := testConn(t)
	var names []string
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := conn.BusObject().CallWithContext(ctx, busName+".ListNames", 0).Store(&names); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if name[0] != ':' {
			continue
		}
		body := []any{iface, map[string]godbus.Variant{property: godbus.MakeVariant(value)}, []string{}}
		conn.Send(&godbus.Message{Type: godbus.TypeSignal, Headers: map[godbus.HeaderField]godbus.Variant{
			godbus.FieldDestination: godbus.MakeVariant(name),
			godbus.FieldPath:        godbus.MakeVariant(path),
			godbus.FieldInterface:   godbus.MakeVariant(busName + ".Properties"),
			godbus.FieldMember:      godbus.MakeVariant("PropertiesChanged"),
			godbus.FieldSignature:   godbus.MakeVariant(godbus.SignatureOf(body...)),
		}, Body: body}, nil)
	}
	if err := conn.BusObject().CallWithContext(ctx, busName+".GetId", 0).Err; err != nil {
		t.Fatal(err)
	}
}
