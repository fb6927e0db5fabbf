package dbus

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"netvmd/internal/netvm"
)

// contract is the XML, as far as it matters here.
type contract struct {
	Interfaces []struct {
		Name    string `xml:"name,attr"`
		Methods []struct {
			Name string `xml:"name,attr"`
			Args []struct {
				Type      string `xml:"type,attr"`
				Direction string `xml:"direction,attr"`
			} `xml:"arg"`
		} `xml:"method"`
		Properties []struct {
			Name string `xml:"name,attr"`
			Type string `xml:"type,attr"`
		} `xml:"property"`
		Signals []struct {
			Name string `xml:"name,attr"`
		} `xml:"signal"`
	} `xml:"interface"`
}

func parseContract(t *testing.T, text string) contract {
	t.Helper()
	var c contract
	if err := xml.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// What the bus says about the object is the contract; each member of that can be called, with its arguments and no
// others, and answers with its types.
func TestTheContractIsWhatCanBeCalled(t *testing.T) {
	s := newScene(t)
	object := client(t).conn.Object(Name, Path)
	var introspected string
	if err := object.CallWithContext(s.ctx, introspectable+".Introspect", 0).Store(&introspected); err != nil {
		t.Fatal(err)
	}
	if introspected != Contract {
		t.Fatal("the bus says something else than the contract")
	}
	examples := map[string][]any{
		"SetDnsOverride": {[]string{"192.0.2.1"}, false}, "Get": {Interface, "State"}, "GetAll": {Interface},
		"Set": {Interface, "State", godbus.MakeVariant("x")},
	}
	var callable []string
	for _, i := range parseContract(t, introspected).Interfaces {
		for _, m := range i.Methods {
			callable = append(callable, i.Name+"."+m.Name)
			var in, out string
			for _, a := range m.Args {
				if a.Direction == "out" {
					out += a.Type
				} else {
					in += a.Type
				}
			}
			if takes := methods[i.Name][m.Name].takes; takes != in {
				t.Errorf("%s takes %q, but %q in the contract", m.Name, takes, in)
			}
			call := object.CallWithContext(s.ctx, i.Name+"."+m.Name, 0, examples[m.Name]...)
			if m.Name == "Set" {
				continue // whose errors are tested below
			}
			if call.Err != nil || godbus.SignatureOf(call.Body...).String() != out {
				t.Errorf("%s: %v, %v; want %q", m.Name, call.Body, call.Err, out)
			}
		}
	}
	for iface, members := range methods {
		for name := range members {
			if iface != peer && !slices.Contains(callable, iface+"."+name) {
				t.Errorf("%s.%s can be called, and is not in the contract", iface, name)
			}
		}
	}
}

func TestTheContractNamesThePropertiesThatAreThere(t *testing.T) {
	want, got := map[string]string{}, map[string]string{}
	for _, p := range parseContract(t, Contract).Interfaces[0].Properties {
		want[p.Name] = p.Type
	}
	for name, v := range encode(netvm.Status{}) {
		got[name] = v.Signature().String()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("XML against values (-want +got):\n%s", diff)
	}
}

// An earlier release has not all properties. What it does not say must not frighten.
func TestANetvmdOfAnEarlierReleaseIsUnderstood(t *testing.T) {
	values := encode(sample())
	for name := range younger {
		delete(values, name)
	}
	want := sample()
	want.NMRunning, want.PortalURL = true, ""
	got, err := decode(values)
	if diff := cmp.Diff(want, got, sameAddr); err != nil || diff != "" {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	delete(values, "State")
	if _, err := decode(values); err == nil || !strings.Contains(err.Error(), "State is missing") {
		t.Errorf("without State: %v", err)
	}
}

// Whoever has netvmd's name must not lead a browser to a file or a script.
func TestAPortalsAddressThatIsNoneIsAnError(t *testing.T) {
	for _, address := range []string{"file:///etc/passwd", "javascript:alert(1)", "http://a b/", "--help"} {
		values := encode(sample())
		values["PortalUrl"] = godbus.MakeVariant(address)
		if _, err := decode(values); err == nil || !strings.Contains(err.Error(), "property PortalUrl: ") {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// errorOf is a call's D-Bus error; "" if it has none.
func errorOf(err error) string {
	var e godbus.Error
	if errors.As(err, &e) {
		return e.Name
	}
	return ""
}

func TestWhatCannotBeCalledIsRefusedWithAReason(t *testing.T) {
	s := newScene(t)
	conn := client(t).conn
	value := godbus.MakeVariant("x")
	for _, tc := range []struct {
		path           godbus.ObjectPath
		method         string
		args           []any
		want, sentence string
	}{
		{Path, properties + ".Set", []any{Interface, "State", value}, busPropertyReadOnly, "State of org.qubes_os.NetVM1 is read-only"},
		{Path, properties + ".Set", []any{Interface, "Nonsense", value}, busUnknownProperty, `no property "Nonsense"`},
		{Path, properties + ".Set", []any{"x.y", "State", value}, busUnknownInterface, `no properties of "x.y"`},
		{Path, properties + ".Get", []any{Interface, "Nonsense"}, busUnknownProperty, `no property "Nonsense"`},
		{Path, properties + ".Get", []any{"x.y", "State"}, busUnknownInterface, `"x.y"`},
		{Path, properties + ".GetAll", []any{"x.y"}, busUnknownInterface, `"x.y"`},
		{Path, properties + ".GetAll", []any{Interface, "x"}, busInvalidArgs, `GetAll takes arguments of type "s", not "ss"`},
		{Path, Interface + ".Nonsense", nil, busUnknownMethod, `no method "Nonsense"`},
		{Path, "x.y.Refresh", nil, busUnknownInterface, `no interface "x.y"`},
		{Path, "Nonsense", nil, busUnknownMethod, `no method "Nonsense"`},
		{"/elsewhere", Interface + ".Refresh", nil, busUnknownObject, `no object "/elsewhere"`},
		{"/org", Interface + ".Refresh", nil, busUnknownInterface, "the object is " + string(Path)},
		{Path + "/child", Interface + ".Refresh", nil, busUnknownObject, "no object"},
		{Path, Interface + ".Refresh", []any{true}, busInvalidArgs, `Refresh takes arguments of type "", not "b"`},
		{Path, Interface + ".SetDnsOverride", []any{"192.0.2.1", false}, busInvalidArgs, `takes arguments of type "asb", not "sb"`},
		{Path, Interface + ".SetDnsOverride", []any{[]uint32{1}, false}, busInvalidArgs, `not "aub"`},
		{Path, Interface + ".SetDnsOverride", []any{[]string{"192.0.2.1"}, uint32(1)}, busInvalidArgs, `not "asu"`},
		{Path, Interface + ".SetDnsOverride", []any{[]string{}, false}, InvalidArguments, "no server is named"},
		{Path, Interface + ".SetDnsOverride", []any{[]string{"192.0.2.1", "fish"}, false}, InvalidArguments, `server "fish" is no IP address`},
		{Path, Interface + ".SetDnsOverride", []any{[]string{strings.Repeat("x", 1000)}, false}, InvalidArguments, `xxx"… is no IP address`},
		{Path, Interface + ".SetDnsOverride", []any{make([]string, maxServers+1), false}, InvalidArguments, "more than 64 servers"},
		{Path, Interface + ".SetDnsOverride", []any{[]string{"127.0.0.1"}, false}, InvalidArguments, "127.0.0.1 is a loopback address"},
		{Path, peer + ".Nonsense", nil, busUnknownMethod, "Nonsense"},
	} {
		var e godbus.Error
		err := conn.Object(Name, tc.path).CallWithContext(s.ctx, tc.method, 0, tc.args...).Err
		if !errors.As(err, &e) || e.Name != tc.want || !strings.Contains(e.Error(), tc.sentence) {
			t.Errorf("%s %s %.60v: got %s %q, want %s %q", tc.path, tc.method, tc.args, e.Name, err, tc.want, tc.sentence)
		}
	}
	if got := s.daemon.Holders(); len(got) > 0 {
		t.Errorf("a refused override is in force: %v", got)
	}
}

func TestWhatEveryObjectAnswers(t *testing.T) {
	s := newScene(t)
	conn := client(t).conn
	if err := conn.Object(Name, "/any").CallWithContext(s.ctx, peer+".Ping", 0).Err; err != nil {
		t.Errorf("Ping: %v", err)
	}
	var id string
	err := conn.Object(Name, Path).CallWithContext(s.ctx, peer+".GetMachineId", 0).Store(&id)
	want, missing := os.ReadFile(machineIDFile)
	if missing == nil && (err != nil || id != strings.TrimSpace(string(want))) || missing != nil && errorOf(err) != Failed {
		t.Errorf("GetMachineId: %q, %v", id, err)
	}
	for path, child := range map[godbus.ObjectPath]string{"/": "org", "/org": "qubes_os", "/org/qubes_os": "NetVM1"} {
		var text string
		if err := conn.Object(Name, path).CallWithContext(s.ctx, "Introspect", 0).Store(&text); err != nil || !strings.Contains(text, `"`+child+`"`) {
			t.Errorf("Introspect %s: %q, %v", path, text, err)
		}
	}
	var state string
	if err := conn.Object(Name, Path).CallWithContext(s.ctx, "Get", 0, "", "State").Store(&state); err != nil || state != "online" {
		t.Errorf("Get without interfaces: %q, %v", state, err)
	}
}

func TestClientReadsRoutesAndStatistics(t *testing.T) {
	s := newScene(t)
	c := client(t)
	routes, err := c.Routes(s.ctx)
	if diff := cmp.Diff(sampleRoutes(), routes, sameAddr); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	status := sample()
	status.Statistics = netvm.Statistics{Applies: 3, Coalesced: 2, Restored: 1,
		Latency: netvm.Latency{Count: 3, P50: time.Millisecond, P90: 2 * time.Millisecond, P99: 3 * time.Millisecond, Max: 4 * time.Millisecond}}
	s.service.Publish(status)
	statistics, tally, err := c.Statistics(s.ctx)
	if diff := cmp.Diff(status.Statistics, statistics); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if diff := cmp.Diff(sampleTally(), tally); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheDaemonsErrorsReachTheCaller(t *testing.T) {
	s := newScene(t)
	c := client(t)
	for _, tc := range []struct {
		err  error
		want Error
	}{
		{netvm.InvalidError("203.0.113.1 is this netvm's own"), Error{InvalidArguments, "203.0.113.1 is this netvm's own"}},
		{fmt.Errorf("set: %w", netvm.ErrTooMany), Error{LimitsExceeded, "set: too many at once"}},
		{fmt.Errorf("apply: %w", context.DeadlineExceeded), Error{Timeout, "apply: context deadline exceeded"}},
		{errors.New("no nft\x00\n\xff" + strings.Repeat("x", 1000)), Error{Failed, "no nft\uFFFD \uFFFD" + strings.Repeat("x", maxSentence-9) + "…"}},
	} {
		s.daemon.mu.Lock()
		s.daemon.err = tc.err
		s.daemon.mu.Unlock()
		_, refreshed := c.Refresh(s.ctx)
		_, listed := c.Routes(s.ctx)
		_, _, counted := c.Statistics(s.ctx)
		for what, err := range map[string]error{
			"Refresh": refreshed, "ListRoutes": listed, "GetStatistics": counted,
			"SetDnsOverride":   c.SetDNSOverride(s.ctx, sample().DNSOverrides[0].Servers, false),
			"ClearDnsOverride": c.ClearDNSOverride(s.ctx),
		} {
			var got Error
			if !errors.As(err, &got) || got != tc.want {
				t.Errorf("%s: got %#v, want %#v", what, err, tc.want)
			}
		}
	}
}

// A neighbour may give its Wi-Fi any bytes for a name; the bus would throw us out for some of them.
func TestTextsThatTheBusDoesNotTakeAreMendedAndShown(t *testing.T) {
	s := newScene(t)
	status := sample()
	status.Uplinks[0].SSID, status.Problems = "a\x00b\xff", []string{"c\x00"}
	status.DNSDropped[0].Reason = "d\x00"
	s.service.Publish(status)
	s.await(t, "the mended texts", func(e Event) bool {
		return e.Running && e.Status.Problems[0] == "c\uFFFD" && e.Status.Uplinks[0].SSID == "a\uFFFDb\uFFFD" && e.Status.DNSDropped[0].Reason == "d\uFFFD"
	})
}

func TestACallThatWantsNoAnswerIsWorkedOn(t *testing.T) {
	s := newScene(t)
	client(t).conn.Object(Name, Path).CallWithContext(s.ctx, Interface+".Refresh", godbus.FlagNoReplyExpected)
	s.daemon.until(t, "refresh")
}

// publishing is a daemon that publishes what came of a call before it answers, as the engine does.
type publishing struct {
	*fakeDaemon
	service *Service
}

func (d *publishing) SetOverride(_ context.Context, o netvm.Override) error {
	status := sample()
	status.DNSTargets[0].Resolver.Addr = o.Servers[0]
	d.service.Publish(status)
	return nil
}

func TestACallerWhoHasItsAnswerReadsWhatCameOfIt(t *testing.T) {
	t.Cleanup(startBus(t, t.TempDir()))
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	d := &publishing{fakeDaemon: newFakeDaemon()}
	d.service, _ = run(t, d)
	d.service.Publish(sample())
	await(t, Watch(ctx), "the service", func(e Event) bool { return e.Running })
	c := client(t)
	for i := range 1000 {
		want := netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
		if err := c.SetDNSOverride(ctx, []netip.Addr{want}, true); err != nil {
			t.Fatal(err)
		}
		status, err := c.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got := status.DNSTargets[0].Resolver.Addr; got != want {
			t.Fatalf("call %d: it was answered, and the target still is %s, not %s", i, got, want)
		}
	}
}

// What a distribution's bus and polkit are told agrees with what is served.
func TestThePackagedPoliciesAgreeWithTheContract(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile("../packaging/" + path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	all := func(text, pattern string) (found []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			found = append(found, m[1])
		}
		slices.Sort(found)
		return found
	}
	var served []string
	for iface := range methods {
		served = append(served, iface)
	}
	slices.Sort(served)
	conf := read("dbus-1/org.qubes_os.NetVM1.conf")
	if diff := cmp.Diff(served, all(conf, `<allow send_destination="org.qubes_os.NetVM1" send_interface="([^"]+)"/>`)); diff != "" {
		t.Errorf("interfaces that everybody may call (-served +allowed):\n%s", diff)
	}
	if diff := cmp.Diff([]string{Name}, all(conf, `<allow own="([^"]+)"/>`)); diff != "" {
		t.Errorf("names that root may own (-want +got):\n%s", diff)
	}
	actions := all(read("polkit/org.qubes_os.NetVM1.policy"), `<action id="([^"]+)">`)
	if diff := cmp.Diff([]string{ActionOverride, ActionRefresh}, actions); diff != "" {
		t.Errorf("polkit's actions (-asked for +packaged):\n%s", diff)
	}
	for _, action := range actions {
		if !strings.Contains(Contract, action) {
			t.Errorf("the contract does not name %s", action)
		}
	}
}
