package dbus

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"netvmd/internal/netvm"
)

var sameAddr = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestClientReadsWhatTheServicePublished(t *testing.T) {
	s := newScene(t)
	c := client(t)
	got, err := c.Status(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), got, sameAddr); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOneSignalForASnapshotWithTheChangedPropertiesOnly(t *testing.T) {
	sc := newScene(t)
	s, c := sc.service, as(t, 0)
	signals := make(chan *godbus.Signal, 16)
	if err := c.conn.AddMatchSignalContext(sc.ctx, godbus.WithMatchObjectPath(Path)); err != nil {
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
			sc := newScene(t)
			ctx, s, c, status := sc.ctx, sc.service, as(t, 0), sample()
			events := Watch(ctx)
			status.Vifs = tc.before
			s.Publish(status)
			await(t, events, "the vifs before", func(e Event) bool { return e.Running && cmp.Equal(e.Status.Vifs, tc.before, sameAddr) })
			signals := make(chan *godbus.Signal, 16)
			c.conn.Signal(signals)
			if err := c.conn.AddMatchSignalContext(ctx, godbus.WithMatchObjectPath(Path), godbus.WithMatchInterface(Interface)); err != nil {
				t.Fatal(err)
			}
			status.Vifs = tc.now
			s.Publish(status)
			await(t, events, "the vifs after", func(e Event) bool { return cmp.Equal(e.Status.Vifs, tc.now, sameAddr) })
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

func TestSecondServiceIsToldThatTheNameIsTaken(t *testing.T) {
	s := newScene(t)
	if err := NewService(newFakeDaemon(), quiet()).Run(s.ctx); !errors.Is(err, ErrNameTaken) {
		t.Errorf("got %v", err)
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
