package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"os"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"netvmd/internal/lab"
	"netvmd/internal/lab/desktop"
	"netvmd/internal/lab/fakebus"
	"netvmd/internal/netvm"
)

const (
	// traySlot is the place of the icon, in pixels: that of many panels.
	traySlot = 22
	// trayStarts is how often the tray is started.
	trayStarts = 10
	// trayGoal is how soon after netvmd's signal 99 of 100 changes must be seen.
	trayGoal = 200 * time.Millisecond
	// trayGrowth is by how much the memory may differ after many changes, in bytes: the garbage collector's mood.
	trayGrowth = 2 << 20
	// trayWarm is how many changes the tray sees before its memory is looked at, and trayMany how many then follow.
	trayWarm, trayMany = 500, 10_000
)

// trayBench is a desktop with a panel, and a tray that follows a real netvmd, which follows a NetworkManager that is played.
type trayBench struct {
	*measure
	program string
	desk    *desktop.Desktop
	process *lab.Process
	icon    desktop.Window
}

// tray is the part of the benchmark that is about the tray.
func (m *measure) tray(ctx context.Context, c common, b lab.Backend) error {
	m.out.printf("%s\n", m.out.paint(bold, "netvm-tray in trayer, with netvmd over "+string(b)))
	options := c.options(b, "info")
	options.FakeNetworkManager = true
	return c.withLabOf(ctx, options, func(l *lab.Lab) (err error) {
		m.lab = l
		t := &trayBench{measure: m, program: c.beside("netvm-tray")}
		if t.desk, err = desktop.New(ctx, desktop.Options{}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, t.desk.Close()) }()
		if _, err := t.desk.StartPanel(ctx, desktop.Trayer, traySlot); err != nil {
			return err
		}
		if err := t.show(ctx, t.wifi("ready", 90)); err != nil {
			return err
		}
		return t.all(ctx)
	})
}

// all makes the measurements, one after the other.
func (t *trayBench) all(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{{"starts", t.starts}, {"changes", t.follows}, {"memory", t.lasts}, {"idling", t.idles}} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("tray: %s: %w", step.name, err)
		}
	}
	t.out.printf("\n")
	return nil
}

// wifi is a netvm that is online by a Wi-Fi of this name.
func (t *trayBench) wifi(ssid string, strength uint8) fakebus.Situation {
	return fakebus.Situation{Uplinks: []fakebus.Uplink{t.lab.Home.WiFi(ssid, strength)}}
}

func (t *trayBench) show(ctx context.Context, s fakebus.Situation) error {
	return t.lab.NetVM.FakeNM.Show(ctx, s)
}

// start starts the tray.
func (t *trayBench) start(ctx context.Context) (err error) {
	t.process, err = t.desk.Start(ctx, nil, t.program, "--no-notifications")
	return err
}

// starts measures from before the start until the icon is in the panel.
func (t *trayBench) starts(ctx context.Context) error {
	if err := t.start(ctx); err != nil {
		return err
	}
	var err error
	if t.icon, err = t.desk.Screen.AwaitIcon(ctx, traySlot); err != nil {
		return err
	}
	docked, err := t.desk.Screen.Settled(ctx, t.icon.Place)
	if err != nil {
		return err
	}
	gaze, err := t.desk.Screen.Gaze(ctx, t.icon.Place)
	if err != nil {
		return err
	}
	defer gaze.Close()
	var times []time.Duration
	for range trayStarts {
		if err := t.process.Stop(ctx, syscall.SIGTERM); err != nil {
			return err
		}
		if _, err := gaze.Await(ctx, "the empty panel", func(p *image.RGBA) bool { return !bytes.Equal(p.Pix, docked.Pix) }); err != nil {
			return err
		}
		began := time.Now()
		if err := t.start(ctx); err != nil {
			return err
		}
		seen, err := gaze.Await(ctx, "the icon", func(p *image.RGBA) bool { return bytes.Equal(p.Pix, docked.Pix) })
		if err != nil {
			return err
		}
		times = append(times, seen.Sub(began))
	}
	t.icon, err = t.desk.Screen.AwaitIcon(ctx, traySlot)
	return errors.Join(err, t.table(fmt.Sprintf("%d starts", trayStarts), row{"start → the icon is in the panel", times}))
}

// row is a line of a table.
type row struct {
	what  string
	times []time.Duration
}

func (t *trayBench) table(title string, rows ...row) error {
	table := tabwriter.NewWriter(t.out.w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "   %s\tmedian\tp99\tslowest\t\n", title)
	for _, r := range rows {
		quantileRow(table, r.what, r.times)
	}
	return table.Flush()
}

// follows measures changes between a Wi-Fi and none, each with another name in the menu.
func (t *trayBench) follows(ctx context.Context) (err error) {
	e, err := t.follow(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	var cause, icon, words []time.Duration
	for n := range t.changes {
		came, err := e.change(ctx, n)
		if err != nil {
			return fmt.Errorf("change %d: %w", n+1, err)
		}
		cause = append(cause, came.icon.Sub(came.cause))
		icon = append(icon, came.icon.Sub(came.signal))
		words = append(words, came.words.Sub(came.signal))
	}
	err = t.table(fmt.Sprintf("%d changes", t.changes), row{"netvmd's signal → the icon's pixels", icon},
		row{"netvmd's signal → the menu's words", words}, row{"NetworkManager's signal → the icon's pixels", cause})
	for what, times := range map[string][]time.Duration{"icon": icon, "menu": words} {
		if p99 := quantile(sortedTimes(times), 99); p99 > trayGoal {
			err = errors.Join(err, fmt.Errorf("the %s follows in %s, p99, and should in %s", what, ms(p99), ms(trayGoal)))
		}
	}
	return err
}

// eyes see what changes: netvmd's signals, the icon and the menu.
type eyes struct {
	bench   *trayBench
	signals *lab.Signals
	gaze    *desktop.Gaze
	menu    *desktop.MenuWatch
	looks   [2]*image.RGBA // of the icon offline and online
}

// follow learns what the two icons look like, and begins to follow.
func (t *trayBench) follow(ctx context.Context) (*eyes, error) {
	e := &eyes{bench: t}
	for i, situation := range []fakebus.Situation{{}, t.wifi("learn", 90)} {
		if err := t.show(ctx, situation); err != nil {
			return nil, err
		}
		wanted := []netvm.State{netvm.Offline, netvm.Online}[i]
		if _, err := t.lab.NetVM.Await(ctx, func(s netvm.Status) bool { return s.State == wanted }); err != nil {
			return nil, err
		}
		if err := wait(ctx, time.Second); err != nil { // nobody says that nothing will change any more
			return nil, err
		}
		var err error
		if e.looks[i], err = t.desk.Screen.Settled(ctx, t.icon.Place); err != nil {
			return nil, err
		}
	}
	var err, signals, gaze error
	e.menu, err = t.desk.WatchMenu(ctx)
	e.signals, signals = t.lab.NetVM.Signals(ctx)
	e.gaze, gaze = t.desk.Screen.Gaze(ctx, t.icon.Place)
	return e, errors.Join(err, signals, gaze)
}

func (e *eyes) close() error {
	e.gaze.Close()
	return errors.Join(e.menu.Close(), e.signals.Close())
}

// moments are when a change was made, and seen.
type moments struct{ cause, signal, icon, words time.Time }

// change makes one change, and waits until all have seen it.
func (e *eyes) change(ctx context.Context, n int) (m moments, err error) {
	online := n % 2
	name := fmt.Sprintf("network number %d", n)
	situation := []fakebus.Situation{{}, e.bench.wifi(name, 90)}[online]
	state := []netvm.State{netvm.Offline, netvm.Online}[online]
	read := make(chan error, 1)
	m.cause = time.Now()
	if err := e.bench.show(ctx, situation); err != nil {
		return m, err
	}
	go func() {
		var err error
		m.words, err = e.menu.Await(ctx, name, func(menu desktop.Item) bool {
			return strings.Contains(menu.String(), name) == (online == 1) && (online == 1 || !strings.Contains(menu.String(), "network number"))
		})
		read <- err
	}()
	m.icon, err = e.gaze.Await(ctx, "the icon", func(p *image.RGBA) bool { return bytes.Equal(p.Pix, e.looks[online].Pix) })
	if err = errors.Join(err, <-read); err != nil {
		return m, err
	}
	m.signal, err = e.signals.Await(ctx, "State", func(value any) bool { return value == any(string(state)) })
	return m, err
}

// lasts makes many changes, and looks whether the tray keeps more than before.
func (t *trayBench) lasts(ctx context.Context) error {
	if err := t.many(ctx, 0, trayWarm); err != nil {
		return err
	}
	before, err := t.keeps()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := t.many(ctx, trayWarm, trayMany); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := t.keeps()
	if err != nil {
		return err
	}
	t.out.printf("\n   %d more changes in %.0f s: %.1f MiB resident before, %.1f MiB after; open files %d and %d; X resources %d and %d\n",
		trayMany, took.Seconds(), mib(before.resident), mib(after.resident), before.files, after.files, before.x, after.x)
	if after.resident > before.resident+trayGrowth || after.files > before.files || after.x > before.x {
		return errors.New("it keeps more than before")
	}
	return nil
}

// many makes changes of the name and the strength of a Wi-Fi, each when netvmd has told the one before.
func (t *trayBench) many(ctx context.Context, from, number int) (err error) {
	signals, err := t.lab.NetVM.Signals(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, signals.Close()) }()
	for n := from; n < from+number; n++ {
		if err := t.show(ctx, t.wifi(fmt.Sprintf("network number %d", n), uint8(n%101))); err != nil {
			return err
		}
		if _, err := signals.Await(ctx, "Uplinks", lab.Any); err != nil {
			return err
		}
	}
	menu, err := t.desk.WatchMenu(ctx)
	if err != nil {
		return err
	}
	last := fmt.Sprintf("network number %d", from+number-1)
	_, err = menu.Await(ctx, last, func(m desktop.Item) bool { return strings.Contains(m.String(), last) })
	return errors.Join(err, menu.Close())
}

// kept is what the tray holds.
type kept struct {
	resident uint64 // bytes
	files    int    // open
	x        uint32 // resources in the X server
}

func (t *trayBench) keeps() (k kept, err error) {
	usage, err := t.process.Usage()
	if err != nil {
		return k, err
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", t.process.PID()))
	if err != nil {
		return k, err
	}
	resources, err := t.desk.Screen.Resources(t.process.PID())
	for _, n := range resources {
		k.x += n
	}
	k.resident, k.files = usage.Resident, len(files)
	return k, err
}

// idles measures what the tray costs while nothing happens.
func (t *trayBench) idles(ctx context.Context) error { return t.idling(ctx, t.process) }
