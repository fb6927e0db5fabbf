package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/dbus"
	"netvmd/internal/lab/desktop"
	"netvmd/tray/view"
	"netvmd/tray/view/examples"
)

const (
	// changes is how many statuses are published, one after another.
	changes = 10_000
	// warming is how many of them come before the first measurement: by then every row of the menu has been made, and Go's
	// and C's heaps have the size that they keep.
	warming = changes / 10
	// growth is by how much the resident memory may differ afterwards, in bytes: some 230 a change. A leak of one row's
	// text at each change would be more.
	growth = 2 << 20
	// idleFor is how long the idle tray is watched.
	idleFor = 10 * time.Second
	// idleWakeups is how many context switches all of its threads together may make meanwhile, and idleCPU how much
	// processor they may use: none comes from a timer of ours.
	idleWakeups = 8
	idleCPU     = time.Millisecond
	// idleTimes is how often it is watched until that holds: Go's runtime looks after its heap every two minutes, and gives
	// memory back in a burst of small steps. A timer of ours would be seen each time.
	idleTimes = 3
)

// plain has the tray run as it is installed: the race detector's memory says nothing about that of the program.
func (s *scene) plain() {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), asProgram)
	if out, err := exec.Command("go", "build", "-trimpath", "-o", path, ".").CombinedOutput(); err != nil {
		s.t.Fatalf("build netvm-tray: %v\n%s", err, out)
	}
	var err error
	s.tray, err = s.Start(s.ctx, nil, path)
	s.must(err)
}

func TestIdleCostsNothing(t *testing.T) {
	s := open(t, desktop.Options{})
	s.startPanel(desktop.Trayer, 22)
	s.plain()
	icon := s.icon(22)
	s.settle(icon, shown(example(t, "ethernet")))
	_, err := s.OpenMenu(s.ctx, icon) // after which nothing goes on either
	s.must(err)
	s.must(s.CloseMenu(s.ctx))
	time.Sleep(idleFor / 5) // what the start has left to be done
	for range idleTimes {
		before, err := s.tray.Usage()
		s.must(err)
		time.Sleep(idleFor)
		after, err := s.tray.Usage()
		s.must(err)
		used := after.Since(before)
		t.Logf("in %s: %s of processor, %d context switches, %.1f MiB resident", idleFor, used.CPU, used.Switches,
			float64(used.Resident)/(1<<20))
		if used.CPU <= idleCPU && used.Switches <= idleWakeups {
			return
		}
	}
	t.Errorf("it was never idle for %s: want at most %s of processor and %d context switches", idleFor, idleCPU, idleWakeups)
}

// holdings are what the tray holds at a moment.
type holdings struct {
	resident     uint64
	files, tasks int
	screen       map[string]uint32 // in the X server
}

func (s *scene) holdings() holdings {
	s.t.Helper()
	usage, err := s.tray.Usage()
	s.must(err)
	h := holdings{resident: usage.Resident}
	for name, count := range map[string]*int{"fd": &h.files, "task": &h.tasks} {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", s.tray.PID(), name))
		s.must(err)
		*count = len(entries)
	}
	h.screen, err = s.Screen.Resources(s.tray.PID())
	s.must(err)
	return h
}

// publish publishes statuses from one number to another, of which each is told on the bus, and waits until the tray shows
// the last.
func (s *scene) publish(icon desktop.Window, some []examples.Example, from, to int) {
	s.t.Helper()
	told := s.told()
	var known view.Known
	for n := from; n < to; n++ {
		known = some[n%len(some)].Known
		known.Status.ApplyTime = time.Duration(n) * time.Microsecond // so that each is another
		s.netvmd.Publish(known.Status)
		select {
		case <-told:
		case <-s.ctx.Done():
			s.t.Fatalf("change %d is not told on the bus: %v", n, s.ctx.Err())
		}
	}
	s.settle(icon, shown(known))
	s.reads(known)
}

// told gets a value for each PropertiesChanged of netvmd from now on.
func (s *scene) told() <-chan *godbus.Signal {
	s.t.Helper()
	conn, err := godbus.ConnectSystemBus(godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()))
	s.must(err)
	s.t.Cleanup(func() { s.must(conn.Close()) })
	s.must(conn.AddMatchSignalContext(s.ctx, godbus.WithMatchSender(dbus.Name), godbus.WithMatchMember("PropertiesChanged")))
	signals := make(chan *godbus.Signal, 1)
	conn.Signal(signals)
	return signals
}

func TestTenThousandChangesLeaveNothing(t *testing.T) {
	s := open(t, desktop.Options{})
	s.startPanel(desktop.Trayer, 22)
	s.plain()
	icon := s.icon(22)
	some := onePerIcon(t)[1:] // but for the one without netvmd
	for _, name := range []string{"no-vifs", "8-vifs", "six-uplinks", "hostile"} {
		some = append(some, examples.Example{Name: name, Known: example(t, name)})
	}
	began := time.Now()
	s.publish(icon, some, 0, warming)
	before := s.holdings()
	s.publish(icon, some, warming, changes)
	after := s.holdings()
	t.Logf("%d changes in %s; before %+v, after %+v", changes, time.Since(began), before, after)
	if after.resident > before.resident+growth {
		t.Errorf("%.1f MiB resident after %d changes, %.1f after %d", float64(before.resident)/(1<<20), warming,
			float64(after.resident)/(1<<20), changes)
	}
	if after.files > before.files || after.tasks > before.tasks {
		t.Errorf("files %d, threads %d before; %d, %d after", before.files, before.tasks, after.files, after.tasks)
	}
	for kind, count := range after.screen {
		if count > before.screen[kind] {
			t.Errorf("%d %s in the X server before, %d after", before.screen[kind], kind, count)
		}
	}
}
