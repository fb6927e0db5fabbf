package vif

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestAnInspectionSaysWhatIsNotAsRecorded(t *testing.T) {
	sound, damaged, gone := spec(9, "10.137.0.9", "fd00::9"), spec(10, "10.137.0.10"), spec(11, "10.137.0.11")
	w := newTown(t)
	for _, s := range []Spec{damaged, sound, gone} {
		w.live(s)
	}
	w.must(netlink.LinkDel(w.link(gone.Name)))
	w.must(netlink.RouteDel(hostRoute(w.link(damaged.Name), netip.MustParseAddr("10.137.0.10"), damaged.Metric)))
	w.must(netlink.LinkSetDown(w.link(damaged.Name)))
	w.plug("vif12.0")
	w.plug("vif13.0")
	w.must(os.WriteFile(filepath.Join(w.dir, "vifs", "vif13.0.json"), []byte("nonsense"), 0o600))

	got, err := Inspect(w.ctx, w.dir, w.gate)
	w.must(err)
	var states []string
	for _, v := range got.Vifs {
		states = append(states, v.Name+" "+string(v.State))
	}
	if want := []string{"vif9.0 up", "vif10.0 degraded"}; !slices.Equal(states, want) {
		t.Errorf("%q, want %q", states, want)
	}
	if !slices.Equal(got.Unrecorded, []string{"vif12.0"}) {
		t.Errorf("unrecorded: %q", got.Unrecorded)
	}
	if len(got.Faults) != 3 {
		t.Errorf("faults of %d vifs: %q", len(got.Faults), got.Faults)
	}
	for name, word := range map[string]string{"vif10.0": "the device is down", "vif11.0": "its device is gone", "vif13.0": "not understood"} {
		if !strings.Contains(strings.Join(got.Faults[name], "; "), word) {
			t.Errorf("%s: %q, want %q", name, got.Faults[name], word)
		}
	}
	if w.gate.holder("10.137.0.11") != gone.Name {
		t.Error("the inspection took something away")
	}
}

func TestAnInspectionOfAnEmptyMachineFindsNothing(t *testing.T) {
	got, err := Inspect(context.Background(), filepath.Join(t.TempDir(), "none"), &gate{admitted: map[netip.Addr]string{}})
	if err != nil || len(got.Vifs)+len(got.Faults)+len(got.Unrecorded) > 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
