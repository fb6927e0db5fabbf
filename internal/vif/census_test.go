package vif

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

func TestCensusFollowsVifsByDomainAsTheyComeAndGo(t *testing.T) {
	w := newTown(t)
	ten, nine := spec(10, "10.137.0.10", "fd00::10"), spec(9, "10.137.0.9")
	w.live(ten)
	w.run()
	w.vifsAre("vif10.0")
	w.live(nine)
	w.vifsAre("vif9.0", "vif10.0")
	vifs, problems := w.census.Take()
	if v := vifs[1]; !slices.Equal(v.Addresses, ten.Addresses) || v.MAC != ten.MAC || v.Metric != ten.Metric || v.Since.IsZero() || len(problems) > 0 {
		t.Errorf("%+v, problems %q", v, problems)
	}
	w.must(netlink.LinkDel(w.link("vif10.0")))
	w.vifsAre("vif9.0")
	w.must(w.Offline(w.ctx, "vif10.0"))
	w.must(w.Offline(w.ctx, "vif9.0"))
	w.vifsAre()
}

// dom0 itself is a domain with a card, while qvm-dom0-network-via-netvm has it on the network.
func TestDom0sCardIsFollowedAndMendedLikeOthers(t *testing.T) {
	w := newTown(t)
	s := spec(0, "10.137.255.254")
	w.live(s)
	w.live(spec(9, "10.137.0.9"))
	w.run()
	w.vifsAre("vif0.0", "vif9.0")
	if vifs, problems := w.census.Take(); vifs[0].DomID != 0 || vifs[0].Metric != 32752 || len(problems) > 0 {
		t.Errorf("%+v, problems %q", vifs[0], problems)
	}
	w.must(netlink.RouteDel(hostRoute(w.link(s.Name), s.Addresses[0], s.Metric)))
	w.sound(s)
	w.must(netlink.LinkDel(w.link(s.Name)))
	w.must(w.Offline(w.ctx, s.Name))
	w.vifsAre("vif9.0")
}

func TestFirstLookComesWithoutAnyVif(t *testing.T) {
	w := newTown(t)
	w.run()
	select {
	case <-w.census.Changed():
	case <-time.After(patience):
		t.Fatal("no token")
	}
}

func TestWhatDriftedIsMended(t *testing.T) {
	s := spec(9, "10.137.0.9", "fd00::9")
	route := func(w *town, a string) *netlink.Route {
		return hostRoute(w.link(s.Name), netip.MustParseAddr(a), s.Metric)
	}
	for _, tc := range []struct {
		what   string
		damage func(w *town) error
	}{
		{"an IPv4 route is deleted", func(w *town) error { return netlink.RouteDel(route(w, "10.137.0.9")) }},
		{"an IPv6 route is deleted", func(w *town) error { return netlink.RouteDel(route(w, "fd00::9")) }},
		{"the gateway's address is deleted", func(w *town) error {
			return netlink.AddrDel(w.link(s.Name), &netlink.Addr{IPNet: single(s.Gateway)})
		}},
		{"a neighbour gets another Ethernet address", func(w *town) error {
			return netlink.NeighSet(&netlink.Neigh{LinkIndex: w.link(s.Name).Attrs().Index, State: unix.NUD_PERMANENT,
				IP: s.Addresses[0].AsSlice(), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}})
		}},
		{"a neighbour is deleted", func(w *town) error {
			return netlink.NeighDel(&netlink.Neigh{LinkIndex: w.link(s.Name).Attrs().Index, IP: s.Addresses[1].AsSlice()})
		}},
		{"the device leaves the group", func(w *town) error { return netlink.LinkSetGroup(w.link(s.Name), 0) }},
		{"the device is set down", func(w *town) error { return netlink.LinkSetDown(w.link(s.Name)) }},
		{"its admission is lost", func(w *town) error {
			w.gate.set(func() { clear(w.gate.admitted) })
			w.census.Look() // as the engine does when the firewall hints
			return nil
		}},
		{"it is admitted to an address of another", func(w *town) error {
			w.gate.set(func() { w.gate.admitted[netip.MustParseAddr("10.137.0.99")] = s.Name })
			w.census.Look()
			return nil
		}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			w := newTown(t)
			w.live(s)
			w.run()
			w.vifsAre("vif9.0")
			w.must(tc.damage(w))
			if l, err := w.survey(w.ctx, shelf{}); err != nil {
				t.Fatal(err)
			} else if d := l.drift(s); len(d.all()) == 0 && w.looks.n.Load() < 2 {
				t.Fatal("the damage is not seen")
			}
			w.sound(s)
			if h := w.gate.holder("10.137.0.99"); h != "" {
				w.until("the stranger's address is taken", func([]netvm.Vif, []string) bool { return w.gate.holder("10.137.0.99") == "" })
			}
			w.until("no problem", func(vifs []netvm.Vif, problems []string) bool {
				return len(problems) == 0 && len(vifs) == 1 && vifs[0].State == netvm.VifUp
			})
		})
	}
}

func TestDriftIsOnlySaidWhenTheAdminWantsThat(t *testing.T) {
	w := newTown(t)
	s := spec(9, "10.137.0.9")
	w.live(s)
	w.census.Configure(true)
	w.run()
	w.vifsAre("vif9.0")
	w.must(netlink.LinkSetDown(w.link(s.Name)))
	w.until("the problem", func(_ []netvm.Vif, problems []string) bool {
		return len(problems) == 1 && strings.Contains(problems[0], "the device is down") && strings.Contains(problems[0], "on_drift")
	})
	w.vifsAre("vif9.0!")
	w.census.Configure(false)
	w.vifsAre("vif9.0")
	w.sound(s)
}

func TestVifWhoseLockIsHeldIsLeftAlone(t *testing.T) {
	w := newTown(t)
	s := spec(9, "10.137.0.9")
	w.live(s)
	w.run()
	w.vifsAre("vif9.0")
	unlock, err := w.locks.vif(w.ctx, s.Name)
	w.must(err)
	w.must(netlink.LinkSetDown(w.link(s.Name)))
	w.vifsAre("vif9.0!")
	if _, problems := w.census.Take(); len(problems) > 0 {
		t.Errorf("what the hotplug program does is called a problem: %q", problems)
	}
	if up := w.link(s.Name).Attrs().Flags & net.FlagUp; up != 0 {
		t.Error("it was mended under the hotplug program's hands")
	}
	unlock() // as when the program is killed: no event comes
	w.vifsAre("vif9.0")
	w.sound(s)
}

func TestVifThatCannotBeMendedIsTriedWithPausesAndSaid(t *testing.T) {
	w := newTown(t)
	s := spec(9, "10.137.0.9")
	w.live(s)
	w.run()
	w.vifsAre("vif9.0")
	w.gate.set(func() { clear(w.gate.admitted); w.gate.broken = errors.New("no memory") })
	w.census.Look()
	w.until("the problem", func(_ []netvm.Vif, problems []string) bool {
		return len(problems) == 1 && strings.Contains(problems[0], "no memory") && strings.Contains(problems[0], "detach")
	})
	w.vifsAre("vif9.0!")
	before := w.gate.calls()
	for until := time.Now().Add(time.Second); time.Now().Before(until); {
		w.census.Look() // events go on coming
	}
	if n := w.gate.calls() - before; n < 1 || n > 5 {
		t.Errorf("%d tries in a second, want a few with growing pauses", n)
	}
	w.gate.set(func() { w.gate.broken = nil })
	w.until("no problem", func(_ []netvm.Vif, problems []string) bool { return len(problems) == 0 })
	w.vifsAre("vif9.0")
}

func TestAddressThatMovedToANewerDomainIsNoDrift(t *testing.T) {
	w := newTown(t)
	old, young := spec(9, "10.137.0.9"), spec(10, "10.137.0.9")
	w.live(old)
	w.live(young)
	w.run()
	w.vifsAre("vif9.0", "vif10.0")
	if h := w.gate.holder("10.137.0.9"); h != "vif10.0" {
		t.Errorf("it belongs to %s", h)
	}
	w.gate.set(func() { clear(w.gate.admitted) })
	w.census.Look()
	w.sound(young)
	if h := w.gate.holder("10.137.0.9"); h != "vif10.0" {
		t.Errorf("after the loss it belongs to %s", h)
	}
	// The newer dies without a word, so the address is the older one's again.
	w.must(netlink.LinkDel(w.link("vif10.0")))
	w.until("the address is the older one's", func([]netvm.Vif, []string) bool { return w.gate.holder("10.137.0.9") == "vif9.0" })
	if _, err := w.records.Read("vif10.0"); err != nil {
		t.Errorf("not before its record was forgotten: %v", err)
	}
	w.sound(old)
}

func TestOnlineOfAVifThatIsUpBringsBackALostAdmission(t *testing.T) {
	w := newTown(t)
	s := spec(9, "10.137.0.9", "fd00::9")
	w.live(s)
	w.gate.set(func() { clear(w.gate.admitted) })
	w.must(w.Online(w.ctx, s))
	w.sound(s)
}

func TestWhatIsLeftOfDevicesThatAreGoneIsTakenAway(t *testing.T) {
	w := newTown(t)
	dead := spec(8, "10.137.0.8")
	w.live(dead)
	w.must(netlink.LinkDel(w.link(dead.Name))) // and nobody runs the hotplug program
	w.must(os.WriteFile(filepath.Join(w.records.Dir(), "vif7.0.json"), []byte("nonsense"), 0o644))
	w.gate.set(func() {
		w.gate.admitted[netip.MustParseAddr("10.137.0.6")] = "vif6.0" // of a run that was killed
		w.gate.admitted[netip.MustParseAddr("10.137.0.5")] = "eth5"   // an admin's
	})
	w.run()
	w.until("nothing is left", func([]netvm.Vif, []string) bool {
		names, err := w.records.Names()
		w.must(err)
		return len(names) == 0 && w.gate.holder("10.137.0.8") == "" && w.gate.holder("10.137.0.6") == ""
	})
	if h := w.gate.holder("10.137.0.5"); h != "eth5" {
		t.Errorf("the admin's own element is gone: %q", h)
	}
}

func TestRecordThatIsNotUnderstoodIsSaid(t *testing.T) {
	w := newTown(t)
	s := spec(9, "10.137.0.9")
	w.live(s)
	w.must(os.WriteFile(w.records.path(s.Name), []byte("nonsense"), 0o644))
	w.run()
	w.until("the problem", func(vifs []netvm.Vif, problems []string) bool {
		return len(vifs) == 0 && len(problems) == 1 && strings.Contains(problems[0], "vif9.0.json")
	})
	if h := w.gate.holder("10.137.0.9"); h != s.Name {
		t.Errorf("it was expelled, though its device is there: %q", h)
	}
}

func TestFolderOfTheRecordsMayBeMadeAnew(t *testing.T) {
	w := newTown(t)
	s := spec(9, "10.137.0.9")
	w.live(s)
	w.run()
	w.vifsAre("vif9.0")
	w.must(os.Rename(w.records.Dir(), w.records.Dir()+".old"))
	w.vifsAre()
	w.must(os.Rename(w.records.Dir()+".old/vif9.0.json", w.records.path(s.Name)))
	w.vifsAre("vif9.0")
}

func TestABurstIsSeenInFewLooksAndIdleInNone(t *testing.T) {
	const count = 64
	w := newTown(t)
	w.run()
	w.vifsAre()
	began := time.Now()
	var names []string
	for i := range count {
		s := spec(100+i, fmt.Sprintf("10.137.1.%d", i))
		w.live(s)
		names = append(names, s.Name)
	}
	w.vifsAre(names...)
	if most := int64(time.Since(began)/lookPause) + 3; w.looks.n.Load() > most {
		t.Errorf("%d looks in %s", w.looks.n.Load(), time.Since(began))
	}
	// What does not concern vifs is no reason to look, and neither is nothing.
	device := device(t, "eth7")
	w.must(netlink.LinkSetUp(device))
	time.Sleep(3 * lookPause) // until the last events of the vifs were answered; nothing tells that no more come
	before := w.looks.n.Load()
	for i := range 50 {
		w.must(netlink.NeighSet(&netlink.Neigh{LinkIndex: device.Attrs().Index, State: unix.NUD_REACHABLE,
			IP: net.IPv4(192, 0, 2, byte(i)), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}))
	}
	change(t, netlink.AddrAdd, device, "192.0.2.1/24")
	time.Sleep(3 * lookPause)
	if n := w.looks.n.Load() - before; n != 0 {
		t.Errorf("%d looks for nothing", n)
	}
}

// BenchmarkLook says what a look costs when nothing is amiss.
func BenchmarkLook(b *testing.B) {
	for _, count := range []int{2, 256} {
		b.Run(fmt.Sprintf("%d vifs", count), func(b *testing.B) {
			w := newTown(b)
			for i := range count {
				w.live(spec(1+i, fmt.Sprintf("10.137.%d.%d", 2+i/250, 1+i%250), fmt.Sprintf("fd00::2:%d", i)))
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				w.census.look(w.ctx)
			}
			b.StopTimer()
			if _, problems := w.census.Take(); len(problems) > 0 {
				b.Fatal(problems)
			}
		})
	}
}

func FuzzConcerns(f *testing.F) {
	var i interests
	i.set(map[string]*netdev{"vif9.0": {index: 7}})
	f.Add(uint16(unix.RTM_NEWLINK), []byte("\x00\x00\x01\x00\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0b\x00\x03\x00vif9.0\x00\x00"))
	f.Add(uint16(unix.RTM_NEWROUTE), make([]byte, unix.SizeofRtMsg))
	f.Add(uint16(unix.RTM_NEWNEIGH), []byte{2, 0, 0, 0, 7, 0, 0, 0})
	f.Fuzz(func(t *testing.T, kind uint16, data []byte) {
		if len(data) < 8 && !i.concerns(kind, data) {
			t.Errorf("a message of %d bytes, which cannot be read, is no reason to look", len(data))
		}
	})
}
