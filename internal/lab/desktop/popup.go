package desktop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"slices"
	"strings"

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

// Choose picks a row of the top level of the menu that is open, by the keyboard.
func (d *Desktop) Choose(ctx context.Context, text string) error {
	menu, err := d.Menu(ctx)
	if err != nil {
		return err
	}
	keys, err := downTo(menu, func(row Item) bool { return row.Text == text })
	if err != nil {
		return fmt.Errorf("choose %q: %w", text, err)
	}
	return d.Press(ctx, append(keys, "Return")...)
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

// OpenSubmenu opens, by the keyboard, the submenu of the first row that begins with a text, in the menu that is open, and
// waits until both are to be seen.
func (d *Desktop) OpenSubmenu(ctx context.Context, text string) error {
	menu, err := d.Menu(ctx)
	if err != nil {
		return err
	}
	keys, err := downTo(menu, func(row Item) bool { return strings.HasPrefix(row.Text, text) })
	if err != nil {
		return fmt.Errorf("open the submenu of %q: %w", text, err)
	}
	if err := d.Press(ctx, append(keys, "Right")...); err != nil {
		return err
	}
	_, err = await(ctx, "a submenu", func() (int, bool, error) {
		open, err := d.Screen.Popups()
		return len(open), len(open) > 1, err
	})
	return err
}

// PictureMenus is what is to be seen of the menus that are open, and white around them.
func (s *Screen) PictureMenus(ctx context.Context) (*image.RGBA, error) {
	open, err := s.Popups()
	if err != nil {
		return nil, err
	}
	var all image.Rectangle
	for _, w := range open {
		all = all.Union(w.Place)
	}
	if all.Empty() {
		return nil, errors.New("desktop: no menu is open")
	}
	picture := image.NewRGBA(image.Rectangle{Max: all.Size()})
	draw.Draw(picture, picture.Rect, image.White, image.Point{}, draw.Src)
	for _, w := range open {
		one, err := s.Settled(ctx, w.Place)
		if err != nil {
			return nil, err
		}
		draw.Draw(picture, one.Rect.Add(w.Place.Min.Sub(all.Min)), one, image.Point{}, draw.Src)
	}
	return picture, nil
}

// downTo are the keys that lead from the top of a menu to a row: as often Down as there are rows up to it that can be
// chosen. GTK passes over the others.
func downTo(menu Item, is func(Item) bool) ([]string, error) {
	keys := []string{}
	for _, row := range menu.Items {
		if row.Separator || !row.Enabled {
			continue
		}
		keys = append(keys, "Down")
		if is(row) {
			return keys, nil
		}
	}
	return nil, fmt.Errorf("desktop: no such row that can be chosen in:\n%s", menu)
}
