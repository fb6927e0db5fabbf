package desktop

import (
	"cmp"
	"context"
	"fmt"
	"image"
	"slices"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"
)

// Popups lists the menus that are open, submenus too, from left to right.
func (s *Screen) Popups() ([]Window, error) {
	windows, err := s.windows("_NET_WM_WINDOW_TYPE")
	if err != nil {
		return nil, err
	}
	kinds := map[uint32]bool{}
	for _, name := range []string{"MENU", "DROPDOWN_MENU", "POPUP_MENU"} { // freedesktop.org, EWMH
		atom, err := s.atom("_NET_WM_WINDOW_TYPE_" + name)
		if err != nil {
			return nil, err
		}
		kinds[uint32(atom)] = true
	}
	var open []Window
	for _, w := range windows {
		kind, err := s.property(xproto.Window(w.ID), "_NET_WM_WINDOW_TYPE")
		if err != nil || len(kind) < 4 {
			continue // it has just gone
		}
		if w.Seen && kinds[xgb.Get32(kind)] {
			open = append(open, w)
		}
	}
	slices.SortFunc(open, func(a, b Window) int { return cmp.Compare(a.Place.Min.X, b.Place.Min.X) })
	return open, nil
}

// OpenMenu clicks on an icon with the left button and waits until a menu is open.
func (d *Desktop) OpenMenu(ctx context.Context, icon Window) (Window, error) {
	if err := d.Click(ctx, icon, 1); err != nil {
		return Window{}, err
	}
	return await(ctx, "a menu", func() (Window, bool, error) {
		open, err := d.Screen.Popups()
		if err != nil || len(open) == 0 {
			return Window{}, false, err
		}
		return open[0], true, nil
	})
}

// CloseMenu presses Escape, once a menu that is open, and waits until none is.
func (d *Desktop) CloseMenu(ctx context.Context) error {
	_, err := await(ctx, "the end of the menus", func() (bool, bool, error) {
		open, err := d.Screen.Popups()
		if err != nil || len(open) == 0 {
			return true, true, err
		}
		return false, false, d.Press(ctx, "Escape")
	})
	return err
}

// Choose picks a row of the top level of the menu that is open, by the keyboard: as often Down as there are rows before it
// that can be chosen, and Return.
func (d *Desktop) Choose(ctx context.Context, text string) error {
	menu, err := d.Menu(ctx)
	if err != nil {
		return err
	}
	keys := []string{}
	for _, row := range menu.Items {
		if row.Separator || !row.Enabled {
			continue // which GTK passes over
		}
		keys = append(keys, "Down")
		if row.Text == text {
			return d.Press(ctx, append(keys, "Return")...)
		}
	}
	return fmt.Errorf("desktop: no row %q that can be chosen in:\n%s", text, menu)
}

// Settled waits until two pictures of a place, taken one after another, are the same: until what is there was drawn.
func (s *Screen) Settled(ctx context.Context, at image.Rectangle) (*image.RGBA, error) {
	var before *image.RGBA
	return s.AwaitPicture(ctx, at, "a picture that stays", func(now *image.RGBA) bool {
		same := before != nil && slices.Equal(before.Pix, now.Pix)
		before = now
		return same
	})
}
