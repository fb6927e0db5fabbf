package dbus

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"netvmd/internal/netvm"
)

const patience = 10 * time.Second

// startBus starts a real dbus-daemon of the test's own and points this process to it. stop ends it; starting again
// uses the same address.
func startBus(t *testing.T, dir string) (stop func()) {
	t.Helper()
	socket := filepath.Join(dir, "bus")
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
	config := filepath.Join(dir, "bus.conf")
	err := os.WriteFile(config, []byte(fmt.Sprintf(`<busconfig><type>system</type><listen>unix:path=%s</listen>
<auth>EXTERNAL</auth><policy context="default"><allow send_destination="*" eavesdrop="false"/><allow receive_type="signal"/><allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="method_call"/><allow own="*"/></policy></busconfig>`, socket)), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--print-address=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("these tests need a real dbus-daemon (package dbus): %v", err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it prints its address once it listens
		t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.Remove(socket)
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func serve(t *testing.T) *Service {
	s := NewService(nil, quiet())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func client(t *testing.T) *Client {
	ctx, cancel := context.WithCancel(context.Background())
	c, err := Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = c.Close() })
	return c
}

func sample() netvm.Status {
	a := netip.MustParseAddr
	return netvm.Status{
		Version: "1.2.3", State: netvm.Online,
		Uplinks: []netvm.Uplink{{ID: "Café", Type: "802-11-wireless", Interface: "wlan0", SSID: "x\u202ey", Strength: 70,
			Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}, Gateway: a("192.0.2.1"), Metered: true},
			{ID: "tun", Type: "vpn", Interface: "tun0", VPN: true}},
		DNSSource: "networkmanager", DNSReason: "because", DNSServers: []netvm.Resolver{{Addr: a("192.0.2.53")}},
		DNSTargets: []netvm.Target{{Virtual: a("10.139.1.1"), Resolver: netvm.Resolver{Addr: a("192.0.2.53")}}, {Virtual: a("fd00::1")}},
		ChangedAt:  time.UnixMicro(1_700_000_000_123_456), ApplyTime: 314 * time.Microsecond, Backend: "nftables",
		Vifs: []netvm.Vif{
			{Name: "vif4.0", DomID: 4, Addresses: []netip.Addr{a("10.137.0.11"), a("fd00::b")}, MAC: "00:16:3e:5e:6c:01",
				Visible: a("192.168.0.2"), VisibleGateway: a("192.168.0.1"), Gateway: a("10.137.0.6"), Gateway6: a("fd00::6"),
				Metric: 32748, State: netvm.VifUp, Since: time.UnixMicro(1_700_000_000_000_000)},
			{Name: "vif5.0", DomID: 5, Addresses: []netip.Addr{a("10.137.0.12")}, MAC: "00:16:3e:5e:6c:02",
				Gateway: a("10.137.0.6"), Metric: 32747, State: netvm.VifDegraded, Since: time.UnixMicro(1_700_000_001_000_000)},
		},
		DNSDropped: []netvm.Dropped{{Addr: a("127.0.0.1"), Reason: "it is the loopback"}},
		DNSOverrides: []netvm.Override{{Servers: []netip.Addr{a("192.0.2.53")}, Persistent: true, By: "netvmctl (pid 4711, user 0)",
			Since: time.UnixMicro(1_700_000_000_000_000)}},
		Problems: []string{"one"},
	}
}

func eventually(t *testing.T, ch <-chan Event, what string, holds func(netvm.Status) bool) netvm.Status {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e, ok := <-ch:
			if !ok {
				t.Fatalf("%s: the watch ended", what)
			}
			if e.Running && holds(e.Status) {
				return e.Status
			}
		case <-deadline:
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

var sameAddr = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// shown starts a bus, a service and a client on it, and gives the sample as the client reads it once it is published.
func shown(t *testing.T) (netvm.Status, context.Context, *Service, *Client) {
	t.Helper()
	t.Cleanup(startBus(t, t.TempDir()))
	s, c := serve(t), client(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	ch := Watch(ctx)
	s.Publish(sample())
	return eventually(t, ch, "the sample", func(s netvm.Status) bool { return s.Version == "1.2.3" }), ctx, s, c
}

func TestClientReadsWhatTheServicePublished(t *testing.T) {
	got, _, _, _ := shown(t)
	if diff := cmp.Diff(sample(), got, sameAddr); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOneSignalForASnapshotWithTheChangedPropertiesOnly(t *testing.T) {
	_, ctx, s, c := shown(t)
	signals := make(chan *godbus.Signal, 16)
	if err := c.conn.AddMatchSignalContext(ctx, godbus.WithMatchObjectPath(Path)); err != nil {
		t.Fatal(err)
	}
	c.conn.Signal(signals)
	next := sample()
	next.State, next.DNSTargets = netvm.Portal, next.DNSTargets[:1]
	s.Publish(next)
	var got []string
	for range 2 {
		select {
		case sig := <-signals:
			line := sig.Name[strings.LastIndex(sig.Name, ".")+1:]
			if values, ok := sig.Body[min(1, len(sig.Body)-1)].(map[string]godbus.Variant); ok {
				var names []string
				for n := range values {
					names = append(names, n)
				}
				slices.Sort(names)
				line += " " + strings.Join(names, " ")
			}
			got = append(got, line)
		case <-time.After(patience):
			t.Fatalf("only %q", got)
		}
	}
	want := []string{"PropertiesChanged DnsTargets State", "DnsTargetsChanged"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	s.Publish(next) // the same again: no signal before the next change
	next.State = netvm.Offline
	s.Publish(next)
	if sig := <-signals; !strings.Contains(fmt.Sprint(sig.Body), "offline") {
		t.Errorf("the same status twice was signalled: %v", sig.Body)
	}
}

func TestVifsThatComeAndGoAreSignalledByName(t *testing.T) {
	vif := func(name string, since int64) netvm.Vif { return netvm.Vif{Name: name, Since: time.UnixMicro(since)} }
	for _, tc := range []struct {
		what        string
		before, now []netvm.Vif
		want        []string
	}{
		{"one comes", nil, []netvm.Vif{vif("vif4.0", 1)}, []string{"VifAdded vif4.0"}},
		{"one goes and another stays", []netvm.Vif{vif("vif4.0", 1), vif("vif5.0", 2)}, []netvm.Vif{vif("vif5.0", 2)}, []string{"VifRemoved vif4.0"}},
		{"one comes again under its name", []netvm.Vif{vif("vif4.0", 1)}, []netvm.Vif{vif("vif4.0", 7)},
			[]string{"VifRemoved vif4.0", "VifAdded vif4.0"}},
		{"one is degraded", []netvm.Vif{vif("vif4.0", 1)}, []netvm.Vif{{Name: "vif4.0", Since: time.UnixMicro(1), State: netvm.VifDegraded}}, nil},
	} {
		t.Run(tc.what, func(t *testing.T) {
			status, ctx, s, c := shown(t)
			statuses := Watch(ctx)
			status.Vifs = tc.before
			s.Publish(status)
			eventually(t, statuses, "the vifs before", func(s netvm.Status) bool { return cmp.Equal(s.Vifs, tc.before, sameAddr) })
			signals := make(chan *godbus.Signal, 16)
			c.conn.Signal(signals)
			if err := c.conn.AddMatchSignalContext(ctx, godbus.WithMatchObjectPath(Path), godbus.WithMatchInterface(Interface)); err != nil {
				t.Fatal(err)
			}
			status.Vifs = tc.now
			s.Publish(status)
			eventually(t, statuses, "the vifs after", func(s netvm.Status) bool { return cmp.Equal(s.Vifs, tc.now, sameAddr) })
			status.DNSTargets = nil // whose signal ends the story
			s.Publish(status)
			var got []string
			for sig := range signals {
				name := sig.Name[strings.LastIndex(sig.Name, ".")+1:]
				if name == "DnsTargetsChanged" {
					break
				}
				if name != "PropertiesChanged" && sig.Path == Path {
					got = append(got, fmt.Sprintf("%s %v", name, sig.Body[0]))
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestServiceAndClientLiveThroughARestartOfTheirPeers(t *testing.T) {
	dir := t.TempDir()
	stop := startBus(t, dir)
	s := serve(t)
	s.Publish(sample())
	stop()
	t.Cleanup(startBus(t, dir))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	eventually(t, Watch(ctx), "the service on the new bus", func(s netvm.Status) bool { return s.Version == "1.2.3" })
}

func TestSecondServiceIsToldThatTheNameIsTaken(t *testing.T) {
	_, ctx, _, _ := shown(t)
	if err := NewService(nil, quiet()).Run(ctx); !errors.Is(err, ErrNameTaken) {
		t.Errorf("got %v", err)
	}
}

func TestClientSaysThatNetvmdIsNotRunning(t *testing.T) {
	t.Cleanup(startBus(t, t.TempDir()))
	if _, err := client(t).Status(context.Background()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v", err)
	}
}

func TestPropertiesRefuseWhatTheyMust(t *testing.T) {
	_, ctx, _, c := shown(t)
	obj := c.conn.Object(Name, Path)
	for _, tc := range []struct {
		want string
		call *godbus.Call
	}{
		{"PropertyReadOnly", obj.CallWithContext(ctx, properties+".Set", 0, Interface, "State", godbus.MakeVariant("x"))},
		{"UnknownProperty", obj.CallWithContext(ctx, properties+".Set", 0, Interface, "Nonsense", godbus.MakeVariant("x"))},
		{"UnknownProperty", obj.CallWithContext(ctx, properties+".Get", 0, Interface, "Nonsense")},
		{"UnknownInterface", obj.CallWithContext(ctx, properties+".GetAll", 0, "x.y")},
		{"UnknownMethod", obj.CallWithContext(ctx, Interface+".Nonsense", 0)},
	} {
		var e godbus.Error
		if !errors.As(tc.call.Err, &e) || !strings.HasSuffix(e.Name, tc.want) {
			t.Errorf("want %s, got %v", tc.want, tc.call.Err)
		}
	}
}

// The contract names just the properties that are there, with their types.
func TestContractAndPropertiesAgree(t *testing.T) {
	var node struct {
		Interfaces []struct {
			Name       string `xml:"name,attr"`
			Properties []struct {
				Name string `xml:"name,attr"`
				Type string `xml:"type,attr"`
			} `xml:"property"`
		} `xml:"interface"`
	}
	if err := xml.Unmarshal([]byte(Contract), &node); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, p := range node.Interfaces[0].Properties {
		want[p.Name] = p.Type
	}
	got := map[string]string{}
	for name, v := range encode(netvm.Status{}) {
		got[name] = v.Signature().String()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("XML against values (-want +got):\n%s", diff)
	}
}

func TestDecodeNamesWhatIsWrong(t *testing.T) {
	for name, bad := range map[string]godbus.Variant{
		"DnsTargets":   godbus.MakeVariant([]pair{{"10.139.1.1", "nonsense"}}),
		"DnsServers":   godbus.MakeVariant([]string{"nonsense"}),
		"State":        godbus.MakeVariant([]string{"online"}),
		"DnsChangedAt": godbus.MakeVariant("now"),
		"Uplinks":      godbus.MakeVariant([]map[string]godbus.Variant{{}}),
		"Vifs":         godbus.MakeVariant([]map[string]godbus.Variant{{"name": godbus.MakeVariant("vif4.0")}}),
	} {
		values := encode(sample())
		values[name] = bad
		if _, err := decode(values); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
