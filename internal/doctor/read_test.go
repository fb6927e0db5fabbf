package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/dbus"
	"netvmd/internal/config"
	"netvmd/internal/lab"
	"netvmd/internal/netvm"
)

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// bench is a machine of which a test writes the files.
type bench struct {
	*machine
	t *testing.T
}

func bare(t *testing.T) *bench {
	t.Helper()
	b := &bench{newMachine(deadline(t), Options{}), t}
	b.root, b.conf, b.confErr = t.TempDir(), config.Default(), nil
	return b
}

func (b *bench) write(path, text string) {
	b.t.Helper()
	path = b.path(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) chmod(path string, mode os.FileMode) {
	b.t.Helper()
	if err := os.Chmod(b.path(path), mode); err != nil {
		b.t.Fatal(err)
	}
}

// mustBe wants facts as they were read.
func mustBe[F any](t *testing.T, name string, got F, err error, want F) {
	t.Helper()
	if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
	}
}

func TestForwardingIsReadOfEachVif(t *testing.T) {
	b := bare(t)
	b.vifs = func() ([]string, error) { return []string{"vif1.0", "vif2.0"}, nil }
	b.write(sysctls+"ipv4/ip_forward", "1\n")
	b.write(sysctls+"ipv4/conf/vif1.0/forwarding", "1\n")
	b.write(sysctls+"ipv4/conf/vif2.0/forwarding", "0\n")
	b.write(sysctls+"ipv6/conf/vif1.0/disable_ipv6", "1\n")
	b.write(sysctls+"ipv6/conf/vif2.0/disable_ipv6", "0\n")
	b.write(sysctls+"ipv6/conf/vif2.0/forwarding", "1\n")
	b.write(sysctls+"ipv6/conf/all/forwarding", "0\n")
	got, err := readForwarding(deadline(t), b.machine)
	mustBe(t, "two vifs, one with IPv6", got, err, forwarding{2, []string{"net/ipv4/conf/vif2.0/forwarding", "net/ipv6/conf/all/forwarding"}})
	b.vifs = func() ([]string, error) { return nil, errBroken }
	if _, err := readForwarding(deadline(t), b.machine); !errors.Is(err, errBroken) {
		t.Errorf("the vifs cannot be listed: %v", err)
	}
}

func TestLimitsAreRead(t *testing.T) {
	b := bare(t)
	got, err := readLimits(deadline(t), b.machine)
	mustBe(t, "a kernel without them", got, err, nil)
	b.write(sysctls+"ipv4/icmp_ratelimit", "0\n")
	b.write(sysctls+"ipv6/icmp/ratelimit", "1000\n")
	got, err = readLimits(deadline(t), b.machine)
	mustBe(t, "one is held back", got, err, limits{"net/ipv6/icmp/ratelimit"})
}

func TestNewConfigurationsAreFound(t *testing.T) {
	b, ctx := bare(t), deadline(t)
	b.write("/etc/netvmd/netvmd.toml", "")
	b.write("/etc/netvmd/netvmd.toml.rpmsave", "")
	got, err := readNewConfiguration(ctx, b.machine)
	mustBe(t, "none", got, err, newConfiguration{path: "/etc/netvmd/netvmd.toml"})
	b.write("/etc/netvmd/netvmd.toml.dpkg-dist", "")
	b.write("/etc/netvmd/netvmd.toml.pacnew", "")
	got, err = readNewConfiguration(ctx, b.machine)
	mustBe(t, "two", got, err, newConfiguration{"/etc/netvmd/netvmd.toml", []string{"/etc/netvmd/netvmd.toml.dpkg-dist", "/etc/netvmd/netvmd.toml.pacnew"}})
}

func TestPermissionsAreThoseOfRoot(t *testing.T) {
	b, ctx := bare(t), deadline(t)
	got, err := readPermissions(ctx, b.machine)
	mustBe(t, "nothing is there yet", got, err, permissions{})
	b.write("/etc/netvmd/netvmd.toml", "")
	b.write("/run/netvmd/vifs/vif1.0.json", "")
	got, err = readPermissions(ctx, b.machine)
	mustBe(t, "all is root's", got, err, permissions{})
	b.chmod("/etc/netvmd", 0o777|os.ModeSticky)
	b.chmod("/etc/netvmd/netvmd.toml", 0o666)
	b.chmod("/run/netvmd", 0o775)
	if err := os.Chown(b.path("/run/netvmd/vifs"), 1000, 0); err != nil {
		t.Fatal(err)
	}
	got, err = readPermissions(ctx, b.machine)
	mustBe(t, "nothing is root's alone", got, err, permissions{
		[]string{"/etc/netvmd/netvmd.toml", "/run/netvmd", "/run/netvmd/vifs"},
		[]string{"/etc/netvmd/netvmd.toml may be written by everybody", "/run/netvmd may be written by its group", "/run/netvmd/vifs belongs to user 1000"},
	})
}

func TestTheConfigurationIsRead(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		state      State
		found      string
	}{
		{"valid", "[vif]\ngateway = \"10.137.0.1\"\n", OK, "is valid"},
		{"wrong", "[vif]\ngateway = \"10.137.0.0/24\"\n", Failed, "netvmd.toml:2: vif.gateway"},
	} {
		path := filepath.Join(t.TempDir(), "netvmd.toml")
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		m := newMachine(deadline(t), Options{Config: path})
		got, err := readConfiguration(deadline(t), m)
		if f := got.judge(); err != nil || f.state != tc.state || !strings.Contains(f.found, tc.found) {
			t.Errorf("%s: %+v, %v", tc.name, f, err)
		}
	}
	m := newMachine(deadline(t), Options{Config: "/does/not/exist"})
	if got, err := readConfiguration(deadline(t), m); err != nil || got.judge().state != Failed {
		t.Errorf("a named file that is missing: %+v, %v", got, err)
	}
}

// startBus gives the test a bus of its own, on which anybody may do anything, and points this process to it.
func startBus(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	socket, file := filepath.Join(dir, "bus"), filepath.Join(dir, "bus.conf")
	text := `<busconfig><type>system</type><listen>unix:path=` + socket + `</listen><auth>EXTERNAL</auth><policy context="default">
<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command("dbus-daemon", "--nofork", "--nosyslog", "--nopidfile", "--print-address=1", "--config-file="+file)
	address, err := daemon.StdoutPipe()
	if err == nil {
		err = daemon.Start()
	}
	if err != nil {
		t.Fatalf("this test needs dbus-daemon: %v", err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	if _, err := address.Read(make([]byte, 1)); err != nil { // it prints its address once it listens
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
}

// methods answer for an interface of an object.
type methods map[string]any

// serve takes a name on the bus and answers calls of these interfaces of one object.
func serve(t *testing.T, name string, path godbus.ObjectPath, interfaces map[string]methods) *godbus.Conn {
	t.Helper()
	conn, err := godbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for of, m := range interfaces {
		if err := conn.ExportMethodTable(m, path, of); err != nil {
			t.Fatal(err)
		}
	}
	if reply, err := conn.RequestName(name, godbus.NameFlagDoNotQueue); err != nil || reply != godbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("own %s: %d, %v", name, reply, err)
	}
	return conn
}

func TestProgramsOnTheBusAreAsked(t *testing.T) {
	startBus(t)
	ctx, b := deadline(t), bare(t)
	t.Cleanup(b.close)
	b.vifs = func() ([]string, error) { return []string{"vif1.0", "vif2.0", "vif3.0"}, nil }

	n, err := readNetworkManager(ctx, b.machine)
	mustBe(t, "nobody is there", n, err, networkManager{source: "auto"})
	v, err := readManaged(ctx, b.machine)
	mustBe(t, "nobody is there", v, err, nil)
	p, err := readPolkit(ctx, b.machine)
	mustBe(t, "nobody is there", p, err, polkit{})

	serve(t, nmName, nmPath, map[string]methods{
		nmName: {"GetDeviceByIpIface": func(device string) (godbus.ObjectPath, *godbus.Error) {
			if device == "vif1.0" {
				return "", godbus.NewError(nmUnknownDevice, []any{"no such device"})
			}
			return nmPath, nil
		}},
		"org.freedesktop.DBus.Properties": {"Get": func(of, name string) (godbus.Variant, *godbus.Error) {
			return godbus.MakeVariant(of == nmDevice && name == "Managed"), nil
		}},
	})
	n, err = readNetworkManager(ctx, b.machine)
	mustBe(t, "NetworkManager", n, err, networkManager{running: true, source: "auto"})
	v, err = readManaged(ctx, b.machine)
	mustBe(t, "NetworkManager", v, err, managed{"vif2.0", "vif3.0"})

	serve(t, "org.freedesktop.PolicyKit1", "/", nil)
	b.write("/usr/share/polkit-1/actions/org.qubes_os.NetVM1.policy", "")
	p, err = readPolkit(ctx, b.machine)
	mustBe(t, "polkit", p, err, polkit{true, true})

	b.write("/etc/resolv.conf", "nameserver 192.0.2.1\nnameserver\n# 127.0.0.53\n")
	r, err := readResolved(ctx, b.machine)
	mustBe(t, "a server of the network", r, err, resolved{source: "auto"})
	b.write("/etc/resolv.conf", "# a stub\nnameserver 127.0.0.53\noptions edns0\n")
	r, err = readResolved(ctx, b.machine)
	mustBe(t, "a stub without resolved", r, err, resolved{stub: true, source: "auto"})
	serve(t, "org.freedesktop.resolve1", "/", nil)
	r, err = readResolved(ctx, b.machine)
	mustBe(t, "resolved", r, err, resolved{true, true, "auto"})
}

func TestWithoutABusEveryQuestionToItIsOpen(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
	b := bare(t)
	states := map[string]State{}
	for _, r := range diagnose(deadline(t), b.machine, netvmChecks, checkTimeout) {
		states[r.ID] = r.State
	}
	want := map[string]State{"bus": Failed, "networkmanager": Unknown, "networkmanager-vifs": Unknown, "resolved": Unknown,
		"netvmd": Unknown, "problems": Unknown, "units": Unknown, "bus-policy": Unknown, "polkit": Unknown}
	for id, state := range want {
		if states[id] != state {
			t.Errorf("%s: %s, want %s", id, states[id], state)
		}
	}
}

func TestNetvmdIsAskedItself(t *testing.T) {
	startBus(t)
	b := bare(t)
	t.Cleanup(b.close)
	d, err := readDaemon(deadline(t), b.machine)
	if err != nil || d.judge().state != Failed || !strings.Contains(d.judge().remedy, "start netvmd") {
		t.Errorf("nobody is there: %+v, %v", d, err)
	}
	b.version, b.status = "2", func() (netvm.Status, error) { return netvm.Status{Version: "1", Problems: []string{"x"}}, nil }
	d, err = readDaemon(deadline(t), b.machine)
	mustBe(t, "another release", d, err, daemon{version: "1", ours: "2"})
	served := []netvm.Target{to("10.139.1.1", "192.0.2.1")}
	b.uid, b.status = 1000, func() (netvm.Status, error) { return netvm.Status{DNSTargets: served, Problems: []string{"x"}}, nil }
	where, err := readDNS(deadline(t), b.machine)
	mustBe(t, "by somebody without rights", where, err, dns{served})
	b.status = func() (netvm.Status, error) {
		return netvm.Status{State: netvm.Portal, PortalURL: "http://example.org/", Problems: []string{"x"}}, nil
	}
	far, err := readInternet(deadline(t), b.machine)
	mustBe(t, "behind a portal", far, err, internet{netvm.Portal, "http://example.org/"})
	p, err := readProblems(deadline(t), b.machine)
	mustBe(t, "with a problem", p, err, problems{"x"})
}

func TestTheBusPolicyMayBeInSeveralPlaces(t *testing.T) {
	startBus(t)
	b, ctx := bare(t), deadline(t)
	t.Cleanup(b.close)
	got, err := readBusPolicy(ctx, b.machine)
	mustBe(t, "nowhere", got, err, busPolicy{})
	serve(t, dbus.Name, dbus.Path, nil)
	got, err = readBusPolicy(ctx, b.machine)
	mustBe(t, "where nobody looked", got, err, busPolicy{owned: true})
	b.write("/usr/share/dbus-1/system.d/org.qubes_os.NetVM1.conf", "")
	got, err = readBusPolicy(ctx, b.machine)
	mustBe(t, "installed", got, err, busPolicy{path: "/usr/share/dbus-1/system.d/org.qubes_os.NetVM1.conf"})
}

func TestTheStoresAreOpened(t *testing.T) {
	b, ctx := bare(t), deadline(t)
	b.conf.Store.XenStorePath, b.conf.Store.QubesDBSocket = filepath.Join(b.root, "none"), filepath.Join(b.root, "none")
	x, err := readXenStore(ctx, b.machine)
	mustBe(t, "without Xen", x, err, xenStore{})
	s, err := readStore(ctx, b.machine)
	if err != nil || s.xen || s.kind != "none" || s.err != nil || len(s.virtual) != 2 {
		t.Errorf("no store is there: %+v, %v", s, err)
	}
	b.write("/sys/hypervisor/type", "xen\n")
	if x, err = readXenStore(ctx, b.machine); err != nil || !x.xen || x.err == nil {
		t.Errorf("a XenStore that is missing: %+v, %v", x, err)
	}
	b.conf.Store.Kind = config.StoreXenStore
	if s, err = readStore(ctx, b.machine); err != nil || !s.xen || s.err == nil {
		t.Errorf("a store that is missing: %+v, %v", s, err)
	}
	nodes, err := lab.StartXenStore(filepath.Join(b.root, "none"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := nodes.Close(); err != nil {
			t.Error(err)
		}
	})
	x, err = readXenStore(ctx, b.machine)
	mustBe(t, "a XenStore that answers", x, err, xenStore{xen: true})
	nodes.Set("qubes_netvm_gateway", "10.137.0.1")
	if s, err = readStore(ctx, b.machine); err != nil || s.err != nil || s.kind != "xenstore" || s.gateway.String() != "10.137.0.1" {
		t.Errorf("a store that answers: %+v, %v", s, err)
	}
	nodes.Set("qubes_netvm_gateway", "nonsense")
	if s, err = readStore(ctx, b.machine); err != nil || s.judge().state != Failed || !strings.Contains(s.judge().found, "nonsense") {
		t.Errorf("a store that says nonsense: %+v, %v", s, err)
	}
}
