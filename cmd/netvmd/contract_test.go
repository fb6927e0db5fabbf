package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"netvmd/dbus"
	"netvmd/internal/lab"
)

// member is one of an interface, with its D-Bus types.
type member struct {
	Kind, Name string
	In, Out    string // a property and a signal have the latter alone
}

// members reads the members of our interface from an introspection XML, ordered by name.
func members(t *testing.T, text string) []member {
	t.Helper()
	type arg struct {
		Type      string `xml:"type,attr"`
		Direction string `xml:"direction,attr"`
	}
	type element struct {
		XMLName xml.Name
		Name    string `xml:"name,attr"`
		Type    string `xml:"type,attr"`
		Args    []arg  `xml:"arg"`
	}
	var node struct {
		Interfaces []struct {
			Name    string    `xml:"name,attr"`
			Members []element `xml:",any"`
		} `xml:"interface"`
	}
	if err := xml.Unmarshal([]byte(text), &node); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	var out []member
	for _, i := range node.Interfaces {
		if i.Name != dbus.Interface {
			continue
		}
		for _, e := range i.Members {
			m := member{Kind: e.XMLName.Local, Name: e.Name, Out: e.Type}
			for _, a := range e.Args {
				if a.Direction == "in" {
					m.In += a.Type
				} else {
					m.Out += a.Type
				}
			}
			out = append(out, m)
		}
	}
	return sorted(out)
}

func sorted(m []member) []member {
	slices.SortFunc(m, func(a, b member) int { return strings.Compare(a.Name, b.Name) })
	return m
}

// ofKind are the members of one kind.
func ofKind(all []member, kind string) (out []member) {
	for _, m := range all {
		if m.Kind == kind {
			out = append(out, m)
		}
	}
	return out
}

// asNobody runs a program as a user without any rights.
func (s *scene) asNobody(name string, args ...string) string {
	s.t.Helper()
	out, err := s.NetVM.RunAs(s.ctx, lab.Nobody, name, args...)
	s.must(err)
	return out
}

// A user without any rights reads all that there is, with every program.
func TestEverybodyMayReadEverything(t *testing.T) {
	s := open(t, lab.Options{})
	if out, code := s.ctl(lab.Nobody, "status"); code != exitNotRunning {
		t.Errorf("netvmctl status without netvmd: exit code %d, %s", code, out)
	}
	s.start()
	s.nmcli("connection", "up", "home")
	s.leads(s.Home.Resolvers[0], s.Home.Resolvers[1])
	s.state("online")
	s.vifsAre(s.Work.Vif, s.Personal.Vif)
	for _, reader := range []struct {
		name string
		read func(*scene)
	}{
		{"busctl", busctlReads}, {"gdbus", gdbusReads}, {"python3-dbus", pythonReads}, {"netvmctl", netvmctlReads},
		{"netvmctl routes prints what route does", routesAreThoseOfRoute},
		{"netvmctl watch prints what happens", watchTells},
	} {
		t.Run(reader.name, func(t *testing.T) { reader.read(s.with(t)) })
	}
}

// busctlReads compares what busctl prints: NAME TYPE SIGNATURE RESULT/VALUE FLAGS.
func busctlReads(s *scene) {
	want := members(s.t, dbus.Contract)
	text := s.asNobody("busctl", "introspect", "--xml-interface", dbus.Name, string(dbus.Path))
	if diff := cmp.Diff(want, members(s.t, text)); diff != "" {
		s.t.Errorf("the XML (-contract +busctl):\n%s", diff)
	}
	text = s.asNobody("busctl", "introspect", "--no-pager", "--no-legend", "--full", dbus.Name, string(dbus.Path), dbus.Interface)
	var got []member
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		if len(f) < 4 {
			s.t.Fatalf("a line of busctl: %q", line)
		}
		m := member{Kind: f[1], Name: strings.TrimPrefix(f[0], "."), In: dash(f[2]), Out: dash(f[3])}
		if m.Kind != "method" { // what a property or a signal is, stands where a method's arguments are
			m.In, m.Out = "", m.In
		}
		got = append(got, m)
		if m.Kind == "property" && !strings.Contains(line, "emits-change") {
			s.t.Errorf("%s emits no change: %s", m.Name, line)
		}
	}
	if diff := cmp.Diff(want, sorted(got)); diff != "" {
		s.t.Errorf("the table (-contract +busctl):\n%s", diff)
	}
	for _, p := range ofKind(want, "property") {
		value := s.asNobody("busctl", "get-property", dbus.Name, string(dbus.Path), dbus.Interface, p.Name)
		if !strings.HasPrefix(value, p.Out+" ") {
			s.t.Errorf("%s is %q, want the type %s", p.Name, value, p.Out)
		}
	}
	for _, method := range []string{"ListRoutes", "GetStatistics"} {
		answer := s.asNobody("busctl", "call", dbus.Name, string(dbus.Path), dbus.Interface, method)
		if i := slices.IndexFunc(want, func(m member) bool { return m.Name == method }); !strings.HasPrefix(answer, want[i].Out+" ") {
			s.t.Errorf("%s answers %q, want the type %s", method, answer, want[i].Out)
		}
	}
	targets := s.asNobody("busctl", "get-property", dbus.Name, string(dbus.Path), dbus.Interface, "DnsTargets")
	if want := fmt.Sprintf("a(ss) 2 %q %q %q %q\n", lab.Virtual4[0], s.Home.Resolvers[0], lab.Virtual4[1], s.Home.Resolvers[1]); targets != want {
		s.t.Errorf("DnsTargets: %q, want %q", targets, want)
	}
}

// dash is what busctl prints for nothing.
func dash(s string) string {
	if s == "-" {
		return ""
	}
	return s
}

var gdbusProperty = regexp.MustCompile(`readonly (\S+) (\w+) = (.+);`)

// gdbusReads compares what gdbus prints, and calls what may be called.
func gdbusReads(s *scene) {
	want := members(s.t, dbus.Contract)
	at := []string{"--system", "--dest", dbus.Name, "--object-path", string(dbus.Path)}
	text := s.asNobody("gdbus", append([]string{"introspect", "--xml"}, at...)...)
	if diff := cmp.Diff(want, members(s.t, text)); diff != "" {
		s.t.Errorf("the XML (-contract +gdbus):\n%s", diff)
	}
	text = s.asNobody("gdbus", append([]string{"introspect", "--only-properties"}, at...)...)
	var got []member
	for _, f := range gdbusProperty.FindAllStringSubmatch(text, -1) {
		got = append(got, member{Kind: "property", Name: f[2], Out: f[1]})
	}
	if diff := cmp.Diff(ofKind(want, "property"), sorted(got)); diff != "" {
		s.t.Errorf("properties with a value (-contract +gdbus):\n%s\n%s", diff, text)
	}
	for method, answer := range map[string]string{
		"GetStatistics": "'applies': <uint64 ", "ListRoutes": "'iface': <'" + s.Work.Vif + "'>",
	} {
		text := s.asNobody("gdbus", append(append([]string{"call"}, at...), "--method", dbus.Interface+"."+method)...)
		if !strings.Contains(text, answer) {
			s.t.Errorf("%s answers without %q: %s", method, answer, text)
		}
	}
}

// python is the system's own, for which distributions package python3-dbus.
const python = "/usr/bin/python3"

// entriesOf are the types of the entries of the dictionaries in the lists, as the contract tells them in words.
var entriesOf = map[string]map[string]string{
	"Uplinks": {"id": "s", "type": "s", "interface": "s", "ssid": "s", "strength": "y", "addresses": "as", "gateway": "s", "vpn": "b", "metered": "b"},
	"Vifs": {"name": "s", "domid": "u", "addresses": "as", "visible_address": "s", "visible_gateway": "s", "mac": "s",
		"gateway": "s", "gateway6": "s", "metric": "u", "state": "s", "since": "t"},
	"DnsOverrides": {"servers": "as", "persistent": "b", "by": "s", "since": "t"},
	"routes": {"destination": "s", "gateway": "s", "genmask": "s", "flags": "s", "metric": "u", "ref": "u", "use": "u",
		"iface": "s"},
	"counters": {"table": "s", "name": "s", "packets": "t", "bytes": "t"},
	"vifs":     {"name": "s", "rx_bytes": "t", "rx_packets": "t", "tx_bytes": "t", "tx_packets": "t"},
}

// statisticsTypes are those of the answer of GetStatistics.
var statisticsTypes = map[string]string{
	"applies": "t", "coalesced": "t", "restored": "t", "latency_count": "t", "latency_p50": "t", "latency_p90": "t",
	"latency_p99": "t", "latency_max": "t", "spoofed": "t", "unserved": "t", "input_rejected": "t", "forward_rejected": "t",
	"counters": "aa{sv}", "vifs": "aa{sv}",
}

// reading is what testdata/read.py prints of a value.
type reading struct {
	Signature string
	Entries   []map[string]string
	Text      string
}

func pythonReads(s *scene) {
	want := members(s.t, dbus.Contract)
	script, err := os.ReadFile("testdata/read.py")
	s.must(err)
	// So that every list has entries.
	holder, err := s.NetVM.Bus()
	s.must(err)
	s.must(holder.Object(dbus.Name, dbus.Path).CallWithContext(s.ctx, dbus.Interface+".SetDnsOverride", 0,
		[]string{s.Home.Resolvers[2].String()}, false).Err)
	s.leads(s.Home.Resolvers[2], s.Home.Resolvers[2])

	var got struct {
		All, Each, Statistics map[string]reading
		Routes                reading
	}
	s.must(json.Unmarshal([]byte(s.asNobody(python, "-c", string(script))), &got))
	s.must(holder.Close()) // which ends the override
	s.leads(s.Home.Resolvers[0], s.Home.Resolvers[1])
	if diff := cmp.Diff(got.All, got.Each); diff != "" {
		s.t.Errorf("Get and GetAll differ:\n%s", diff)
	}
	types := map[string]string{}
	for _, p := range ofKind(want, "property") {
		types[p.Name] = p.Out
	}
	sameTypes(s.t, types, got.All)
	sameTypes(s.t, statisticsTypes, got.Statistics)
	sameTypes(s.t, map[string]string{"routes": "aa{sv}"}, map[string]reading{"routes": got.Routes})
	if vif := got.All["Vifs"]; len(vif.Entries) != 2 || !strings.Contains(vif.Text, s.Personal.Card.MAC) {
		s.t.Errorf("the vifs: %s", vif.Text)
	}
}

// sameTypes compares the types of what was read, and of the entries of the dictionaries in it, with those of the contract.
func sameTypes(t *testing.T, want map[string]string, got map[string]reading) {
	t.Helper()
	types := map[string]string{}
	for name, r := range got {
		types[name] = r.Signature
		if entriesOf[name] != nil && len(r.Entries) == 0 {
			t.Errorf("%s has no entries to look at", name)
		}
		for _, e := range r.Entries {
			if diff := cmp.Diff(entriesOf[name], e); diff != "" {
				t.Errorf("an entry of %s (-contract +python3-dbus):\n%s", name, diff)
			}
		}
	}
	if diff := cmp.Diff(want, types); diff != "" {
		t.Errorf("types (-contract +python3-dbus):\n%s", diff)
	}
}
