package tray

import (
	"testing"
	"time"

	"netvmd/internal/netvm"
	"netvmd/tray/view"
)

func TestANoticeWaitsUntilItHasSettled(t *testing.T) {
	up, down := view.Known{Running: true, Status: online(0)}, view.Known{Running: true, Status: offline()}
	n := notices{settle: time.Hour}
	n.see(up)
	if n.settled != nil {
		t.Error("something is said of a netvm that is online")
	}
	n.see(down)
	first := n.settled
	if first == nil {
		t.Fatal("nothing is said of a lost uplink")
	}
	n.see(down)
	if n.settled != first {
		t.Error("the same notice waits anew")
	}
	n.see(up)
	if n.settled != nil {
		t.Error("it is not dropped when the uplink is back")
	}
	n.see(down)
	if n.settled == nil || n.settled == first {
		t.Error("the next loss is not said")
	}
	if got := n.give(down); got.Summary == "" {
		t.Error("what was given is empty")
	}
	if n.see(down); n.settled != nil {
		t.Error("it is said twice")
	}
	n.see(up)
	if n.see(down); n.settled == nil {
		t.Error("a later loss is not said")
	}
}

func TestALossThatMaySettleByItselfWaitsLonger(t *testing.T) {
	n := notices{settle: 20 * time.Millisecond}
	n.see(view.Known{Running: true, Status: online(0)})
	begun := time.Now()
	n.see(view.Known{Running: true, Status: netvm.Status{State: netvm.Connecting, NMRunning: true}})
	if n.settled == nil {
		t.Fatal("a loss is not noted while another uplink is tried")
	}
	if receive(t, n.settled); time.Since(begun) < tentatively*n.settle {
		t.Errorf("it is told after %s", time.Since(begun))
	}
}
