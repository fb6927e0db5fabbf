package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"os"
	"slices"

	"netvmd/internal/lab"
	"netvmd/internal/lab/desktop"
	"netvmd/internal/lab/glance"
	"netvmd/internal/netvm"
	"netvmd/tray/icons"
	"netvmd/tray/view"
	"netvmd/tray/view/examples"
)

const picturesAbout = `netvm-lab pictures runs netvm-tray on a private desktop, once for each state, and puts
what is to be seen on one sheet: the icon in real panels of several sizes, the same
drawings on other panels and tinted by dom0, and the menus, each opened by a click.`

// slots are the sizes of an icon's place, in pixels, that pictures are taken at.
var slots = []int{22, 24, 32, 48}

// menuExamples are the examples, beside one for each icon, whose menus are pictured; of the last a submenu, too.
var menuExamples = []string{"40-vifs", "dns-overridden", "hostile", "menu-open"}

func pictures(ctx context.Context, args []string) (err error) {
	out := "tray/pictures.png"
	c, err := parse("pictures", picturesAbout, args, func(flags *flag.FlagSet) {
		flags.StringVar(&out, "out", out, "write the sheet to this `file`")
	})
	if err != nil {
		return err
	}
	if err := lab.Enter(); err != nil {
		return err
	}
	if err := icons.Check(); err != nil {
		return err
	}
	bus, err := lab.StartOpenBus(ctx, "system-bus", lab.Root+"/system-bus")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bus.Stop(context.WithoutCancel(ctx))) }()
	if err := os.Setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.Address()); err != nil {
		return err
	}
	a := newAlbum()
	if err := a.fill(ctx, c.beside("netvm-tray")); err != nil {
		return fmt.Errorf("pictures: %w", err)
	}
	return a.sheet().Save(ctx, out)
}

// sitting is the tray in a panel, with a netvmd that says what the photographer wants.
type sitting struct {
	*desktop.Desktop
	netvmd *lab.StandIn
	kind   desktop.Kind
	icon   desktop.Window
}

// sit starts all that a sitting needs, lets use work with it, and ends it.
func sit(ctx context.Context, program string, kind desktop.Kind, slot int, use func(*sitting) error) (err error) {
	d, err := desktop.New(ctx, desktop.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	for _, started := range []string{"nm-connection-editor", "xdg-open", "netvmctl"} { // so that no action is hindered
		if err := d.StandIn(started, "exit 0"); err != nil {
			return err
		}
	}
	netvmd, err := lab.ServeStandIn(ctx, netvm.Status{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, netvmd.Stop()) }()
	if _, err := d.StartPanel(ctx, kind, slot); err != nil {
		return err
	}
	if _, err := d.Start(ctx, nil, program, "--no-notifications"); err != nil {
		return err
	}
	icon, err := d.Screen.AwaitIcon(ctx, slot)
	if err != nil {
		return err
	}
	return use(&sitting{d, netvmd, kind, icon})
}

// pose has netvmd say what an example knows, and returns the icon when it shows that.
func (s *sitting) pose(ctx context.Context, known view.Known) (*image.RGBA, error) {
	if err := s.netvmd.Stop(); err != nil {
		return nil, err
	}
	if known.Running {
		s.netvmd.Count(netvm.Tally{Traffic: known.Traffic}, known.Routes)
		s.netvmd.Publish(known.Status)
		if err := s.netvmd.Serve(ctx); err != nil {
			return nil, err
		}
	}
	shown := view.Of(known)
	if err := s.Screen.AwaitTitle(ctx, shown.Title); err != nil {
		return nil, err
	}
	size := min(s.icon.Place.Dx(), s.icon.Place.Dy())
	drawing, err := drawingOf(shown.Icon, size)
	if err != nil {
		return nil, err
	}
	return s.Screen.AwaitPicture(ctx, s.icon.Place, string(shown.Icon), func(seen *image.RGBA) bool {
		return glance.Shows(seen, drawing, s.kind != desktop.Tint2)
	})
}

// menu opens the menu by a click and takes its picture, with the first vif's submenu or without it.
func (s *sitting) menu(ctx context.Context, known view.Known, submenu bool) (*image.RGBA, error) {
	if _, err := s.pose(ctx, known); err != nil {
		return nil, err
	}
	if _, err := s.OpenMenu(ctx, s.icon); err != nil {
		return nil, err
	}
	if submenu {
		if err := s.OpenSubmenu(ctx, "vif4.0"); err != nil {
			return nil, err
		}
	}
	picture, err := s.Screen.PictureMenus(ctx)
	return picture, errors.Join(err, s.CloseMenu(ctx))
}

func drawingOf(icon view.Icon, size int) (*image.NRGBA, error) {
	decoded, err := png.Decode(bytes.NewReader(icons.PNG(icon, size)))
	if err != nil {
		return nil, fmt.Errorf("%s at %d pixels: %w", icon, size, err)
	}
	drawing := image.NewNRGBA(decoded.Bounds())
	draw.Draw(drawing, drawing.Rect, decoded, drawing.Rect.Min, draw.Src)
	return drawing, nil
}

// onePerIcon are the first examples, one for each icon.
func onePerIcon() []examples.Example { return examples.All()[:len(view.Icons)] }

// fill takes all pictures.
func (a *album) fill(ctx context.Context, program string) error {
	for _, kind := range a.kinds {
		for _, slot := range slots {
			err := sit(ctx, program, kind, slot, func(s *sitting) error {
				for _, e := range onePerIcon() {
					picture, err := s.pose(ctx, e.Known)
					if err != nil {
						return err
					}
					a.icons[e.Name] = append(a.icons[e.Name], picture)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return sit(ctx, program, desktop.Trayer, slots[0], func(s *sitting) error { return a.fillMenus(ctx, s) })
}

func (a *album) fillMenus(ctx context.Context, s *sitting) error {
	for _, e := range examples.All() {
		if !slices.Contains(menuExamples, e.Name) && !slices.ContainsFunc(onePerIcon(), func(o examples.Example) bool { return o.Name == e.Name }) {
			continue
		}
		picture, err := s.menu(ctx, e.Known, e.Name == menuExamples[len(menuExamples)-1])
		if err != nil {
			return err
		}
		a.menus = append(a.menus, captioned{e.Name, picture})
	}
	return nil
}
