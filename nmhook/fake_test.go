package nmhook

import (
	"context"
	"sync"
	"testing"

	godbus "github.com/godbus/dbus/v5"
)

// fakeService is a fake of NetworkManager, resolved or logind: an owner of the name on a real bus whose
// properties are what the test says, for what the real ones cannot be made to do. It enforces what the bus
// enforces: an unknown object or property is an error, a signal has the sender's own name.
type fakeService struct {
	t    *testing.T
	name string
	conn *godbus.Conn

	mu     sync.Mutex
	values map[godbus.ObjectPath]map[string]map[string]any
	silent chan struct{} // not nil: Get answers when it is closed
}

func fake(t *testing.T, name string) *fakeService {
	t.Helper()
	f := &fakeService{t: t, name: name, values: map[godbus.ObjectPath]map[string]map[string]any{}}
	f.connect()
	t.Cleanup(f.leave)
	return f
}

func (f *fakeService) connect() {
	f.t.Helper()
	conn, err := godbus.ConnectSystemBus()
	if err != nil {
		f.t.Fatal(err)
	}
	f.conn = conn
	for path := range f.values {
		f.export(path)
	}
}

// own takes the name, leave the bus's side of the connection away: what a service does that starts and is killed.
func (f *fakeService) own() {
	f.t.Helper()
	if reply, err := f.conn.RequestName(f.name, godbus.NameFlagDoNotQueue); err != nil || reply != godbus.RequestNameReplyPrimaryOwner {
		f.t.Fatalf("own %s: reply %d, %v", f.name, reply, err)
	}
}

func (f *fakeService) disown() {
	f.t.Helper()
	if _, err := f.conn.ReleaseName(f.name); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fakeService) leave() { f.conn.Close() }

func (f *fakeService) export(path godbus.ObjectPath) {
	if err := f.conn.Export(fakeProperties{f, path}, path, busName+".Properties"); err != nil {
		f.t.Fatal(err)
	}
}

// set gives a property another value without a word; a value of nil takes it away.
func (f *fakeService) set(path godbus.ObjectPath, iface, property string, value any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.values[path] == nil {
		f.values[path] = map[string]map[string]any{}
		f.export(path)
	}
	if f.values[path][iface] == nil {
		f.values[path][iface] = map[string]any{}
	}
	f.values[path][iface][property] = value
}

// change sets a property and announces it, value and all.
func (f *fakeService) change(path godbus.ObjectPath, iface, property string, value any) {
	f.t.Helper()
	f.set(path, iface, property, value)
	f.emit(path, busName+".Properties.PropertiesChanged", iface,
		map[string]godbus.Variant{property: godbus.MakeVariant(value)}, []string{})
}

// invalidate announces that a property is different, without saying how.
func (f *fakeService) invalidate(path godbus.ObjectPath, iface, property string) {
	f.t.Helper()
	f.emit(path, busName+".Properties.PropertiesChanged", iface, map[string]godbus.Variant{}, []string{property})
}

func (f *fakeService) emit(path godbus.ObjectPath, signal string, body ...any) {
	f.t.Helper()
	if err := f.conn.Emit(path, signal, body...); err != nil {
		f.t.Fatal(err)
	}
}

// hush makes the service accept questions and not answer until the returned function is called.
func (f *fakeService) hush() (speak func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	silent := make(chan struct{})
	f.silent = silent
	return func() {
		f.mu.Lock()
		f.silent = nil
		f.mu.Unlock()
		close(silent)
	}
}

type fakeProperties struct {
	service *fakeService
	path    godbus.ObjectPath
}

func (p fakeProperties) Get(iface, property string) (godbus.Variant, *godbus.Error) {
	p.service.mu.Lock()
	silent := p.service.silent
	p.service.mu.Unlock()
	if silent != nil {
		<-silent
	}
	p.service.mu.Lock()
	defer p.service.mu.Unlock()
	value := p.service.values[p.path][iface][property]
	if value == nil {
		return godbus.Variant{}, godbus.NewError(busName+".Error.InvalidArgs", []any{"no such property " + property})
	}
	return godbus.MakeVariant(value), nil
}

// nmFake is a NetworkManager with one Ethernet uplink, whose own name is taken by the caller.
func nmFake(t *testing.T) *fakeService {
	t.Helper()
	f := fake(t, nmName)
	f.set(nmPath, nmName, "State", uint32(70))
	f.set(nmPath, nmName, "Connectivity", uint32(4))
	f.set(nmPath, nmName, "Startup", false)
	f.set(nmPath, nmName, "PrimaryConnection", acPath)
	f.set(nmPath, nmName, "ActiveConnections", []godbus.ObjectPath{acPath})
	f.set(nmDNSPath, nmDNSInterface, "Configuration", dnsConfig("eth0", "192.0.2.1"))
	f.addConnection(acPath, devicePath, "802-3-ethernet", "eth0")
	f.set(ip4Path, nmName+".IP4Config", "AddressData", []map[string]godbus.Variant{{
		"address": godbus.MakeVariant("192.0.2.9"), "prefix": godbus.MakeVariant(uint32(24))}})
	f.set(ip4Path, nmName+".IP4Config", "Gateway", "192.0.2.254")
	return f
}

const (
	acPath     = nmPath + "/ActiveConnection/1"
	devicePath = nmPath + "/Devices/1"
	ip4Path    = nmPath + "/IP4Config/1"
)

func (f *fakeService) addConnection(ac, device godbus.ObjectPath, kind, iface string) {
	active := nmName + ".Connection.Active"
	f.set(ac, active, "Id", "uplink "+iface)
	f.set(ac, active, "Type", kind)
	f.set(ac, active, "State", uint32(2))
	f.set(ac, active, "Vpn", false)
	f.set(ac, active, "Devices", []godbus.ObjectPath{device})
	f.set(ac, active, "SpecificObject", noObject)
	f.set(ac, active, "Ip4Config", ip4Path)
	f.set(ac, active, "Ip6Config", noObject)
	f.set(device, nmName+".Device", "DeviceType", uint32(1))
	f.set(device, nmName+".Device", "IpInterface", iface)
	f.set(device, nmName+".Device", "Interface", iface)
	f.set(device, nmName+".Device", "Metered", uint32(4))
}

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
