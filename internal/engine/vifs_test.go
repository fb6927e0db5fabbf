package engine

import (
	"slices"
	"strings"
	"testing"
	"time"

	"netvmd/internal/netvm"
)

// census is a fake of the vifs.
type census struct {
	*source[[]netvm.Vif]
	looks chan struct{}
}

func (c census) Take() ([]netvm.Vif, []string) {
	vifs := c.source.Take()
	var problems []string
	for _, v := range vifs {
		if v.State == netvm.VifDegraded {
			problems = append(problems, v.Name+" is degraded")
		}
	}
	return vifs, problems
}

func (c census) Look() {
	select {
	case c.looks <- struct{}{}:
	default:
	}
}

func TestVifsArePublishedAndTouchNoTargets(t *testing.T) {
	b := start(t, settings, nil)
	b.uplinks.put(view("192.0.2.1"))
	b.targets("10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.1")
	b.kernel.mu.Lock()
	writes := len(b.kernel.log)
	b.kernel.mu.Unlock()
	up := netvm.Vif{Name: "vif4.0", State: netvm.VifUp}
	b.vifs.put([]netvm.Vif{up})
	b.until("the vif", func(s netvm.Status) bool {
		return len(s.Vifs) == 1 && s.Vifs[0].Name == "vif4.0" && len(s.Problems) == 0
	})
	b.vifs.put([]netvm.Vif{{Name: "vif4.0", State: netvm.VifDegraded}})
	b.until("its problem", func(s netvm.Status) bool { return slices.Equal(s.Problems, []string{"vif4.0 is degraded"}) })
	b.vifs.put(nil)
	b.until("none", func(s netvm.Status) bool { return len(s.Vifs) == 0 && len(s.Problems) == 0 })
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	for _, line := range b.kernel.log[writes:] {
		if !strings.HasPrefix(line, "purge") {
			t.Errorf("vifs led to %q", line)
		}
	}
}

func TestVifsAreLookedAtOnceTheRulesAreBack(t *testing.T) {
	b := start(t, settings, nil)
	b.uplinks.put(view("192.0.2.1"))
	b.targets("10.139.1.1>192.0.2.1 10.139.1.2>192.0.2.1")
	select {
	case <-b.vifs.looks:
		t.Error("a look without a hint")
	default:
	}
	b.kernel.lose()
	b.Drifted("nft (pid 7)")
	select {
	case <-b.vifs.looks:
	case <-time.After(patience):
		t.Fatal("nobody looks at the vifs")
	}
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	if len(b.kernel.targets) == 0 {
		t.Error("the look came before the rules were back")
	}
}

func TestDevicesOfTheUplinksAreAccelerated(t *testing.T) {
	b := start(t, settings, nil)
	v := view("192.0.2.1")
	v.Uplinks = []netvm.Uplink{{Interface: "eth0"}, {Interface: ""}, {Interface: "tun0"}}
	b.uplinks.put(v)
	b.until("the uplinks", func(s netvm.Status) bool { return len(s.Uplinks) == 3 })
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	if !slices.Equal(b.kernel.devices, []string{"eth0", "tun0"}) {
		t.Errorf("accelerated are %q", b.kernel.devices)
	}
}
