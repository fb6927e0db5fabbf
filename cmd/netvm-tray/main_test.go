package main

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"netvmd/internal/lab"
	"netvmd/internal/lab/desktop"
	"netvmd/internal/netvm"
	"netvmd/tray/icons"
	"netvmd/tray/view"
	"netvmd/tray/view/examples"
)

// asProgram is the name under which the tests' own binary is netvm-tray, race detector and all.
const asProgram = "netvm-tray"

// trayPath is where it lies then: where every user of the lab may run it.
const trayPath = lab.Root + "/" + asProgram

// patience bounds each wait for an event.
const patience = 15 * time.Second

// lifeOfScene bounds a test: the longest, of 10,000 changes, takes half a minute on a machine that does nothing else, and
// was seen to take six on one with twenty busy programs.
const lifeOfScene = 10 * time.Minute

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == asProgram {
		main()
		os.Exit(0)
	}
	if err := enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// enter goes into the lab and puts the program and a system bus there.
func enter() error {
	if err := lab.Enter(); err != nil {
		return err
	}
	if err := icons.Check(); err != nil {
		return err
	}
	if err := install("/proc/self/exe", trayPath); err != nil {
		return err
	}
	bus, err := lab.StartOpenBus(context.Background(), "system-bus", lab.Root+"/system-bus")
	if err != nil {
		return err
	}
	return os.Setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.Address())
}

// install copies a program to where every user may run it.
func install(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() // it was only read
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// scene is a desktop, a netvmd that shows what the test says, and the tray.
type scene struct {
	*desktop.Desktop
	t      *testing.T
	ctx    context.Context
	netvmd *lab.StandIn
	panel  *desktop.Panel
	kind   desktop.Kind // of the panel
	away   *bool        // netvmd does not run
	tray   *lab.Process
}

// open makes a desktop with a netvmd behind it, without a panel and without the tray. The programs that the tray starts
// are there as scripts that do nothing.
func open(t *testing.T, o desktop.Options) *scene {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), lifeOfScene)
	t.Cleanup(cancel)
	s := &scene{t: t, ctx: ctx, away: new(bool)}
	var err error
	s.Desktop, err = desktop.New(ctx, o)
	s.must(err)
	t.Cleanup(func() { s.must(s.Close()) })
	for _, program := range []string{"nm-connection-editor", "xdg-open", "netvmctl"} {
		s.must(s.StandIn(program, "exit 0"))
	}
	s.netvmd, err = lab.ServeStandIn(ctx, example(t, "ethernet").Status)
	s.must(err)
	t.Cleanup(func() { s.must(s.netvmd.Stop()) })
	return s
}

// docked is open with a panel, and the tray in it.
func docked(t *testing.T, kind desktop.Kind, slot int) (*scene, desktop.Window) {
	t.Helper()
	s := open(t, desktop.Options{})
	s.startPanel(kind, slot)
	s.run()
	return s, s.icon(slot)
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err == nil {
		return
	}
	if s.tray != nil {
		err = fmt.Errorf("%w; the tray said:\n%s", err, strings.Join(s.tray.Log(), ""))
	}
	s.t.Fatal(err)
}

func (s *scene) startPanel(kind desktop.Kind, slot int) {
	s.t.Helper()
	var err error
	s.kind = kind
	s.panel, err = s.StartPanel(s.ctx, kind, slot)
	s.must(err)
}

// run starts the tray.
func (s *scene) run(args ...string) {
	s.t.Helper()
	var err error
	s.tray, err = s.Start(s.ctx, nil, trayPath, args...)
	s.must(err)
}

// icon waits for the docked icon.
func (s *scene) icon(slot int) desktop.Window {
	s.t.Helper()
	icon, err := s.Screen.AwaitIcon(s.ctx, slot)
	s.must(err)
	return icon
}

// example is one of the situations that the view is tested with.
func example(t *testing.T, name string) view.Known {
	t.Helper()
	known, ok := examples.Named(name)
	if !ok {
		t.Fatalf("no example %q", name)
	}
	return known
}

// become has netvmd say what an example knows, be it by not running.
func (s *scene) become(known view.Known) {
	s.t.Helper()
	if !known.Running {
		s.must(s.netvmd.Stop())
		*s.away = true
		return
	}
	tally := netvm.Tally{Traffic: known.Traffic}
	s.netvmd.Count(tally, known.Routes)
	s.netvmd.Publish(known.Status)
	if *s.away {
		s.must(s.netvmd.Serve(s.ctx))
		*s.away = false
	}
}

// shown is what the view makes of it now.
func shown(known view.Known) view.Shown {
	known.Now = time.Now()
	return view.Of(known)
}

// settle waits until the tray's window has the title of what should be shown, and the icon stands there sharply.
func (s *scene) settle(icon desktop.Window, want view.Shown) *image.RGBA {
	s.t.Helper()
	s.must(s.Screen.AwaitTitle(s.ctx, want.Title))
	size := min(icon.Place.Dx(), icon.Place.Dy())
	picture, err := s.Screen.AwaitPicture(s.ctx, icon.Place, fmt.Sprintf("%s at %d pixels", want.Icon, size),
		func(seen *image.RGBA) bool { return looksLike(seen, want.Icon, size, s.kind) })
	if err != nil {
		s.keep(picture)
	}
	s.must(err)
	return picture
}

// in is the scene for a test within its own.
func (s *scene) in(t *testing.T) *scene {
	within := *s
	within.t = t
	return &within
}
