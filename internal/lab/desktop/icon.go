package desktop

import (
	"context"
	"fmt"
	"image"
	"strconv"

	"github.com/jezek/xgb/xproto"
)

// Icons lists the icons that are docked in a panel and to be seen.
func (s *Screen) Icons() ([]Window, error) {
	// freedesktop.org, "XEmbed Protocol": whatever wants to be embedded has this property. An icon that is not docked
	// is mapped in no panel.
	plugs, err := s.windows("_XEMBED_INFO")
	if err != nil {
		return nil, err
	}
	var icons []Window
	for _, w := range plugs {
		if docked, err := s.isEmbedded(w); err != nil {
			return nil, err
		} else if docked && w.Seen {
			icons = append(icons, w)
		}
	}
	return icons, nil
}

// steady is for how many glances an icon must be the same window: GTK docks one, learns the tray's visual, and docks another.
const steady = 10

// AwaitIcon waits until there is just one icon, for good, whose place has slot pixels on its smaller side: panels have
// their own idea of the other.
func (s *Screen) AwaitIcon(ctx context.Context, slot int) (Window, error) {
	var last []Window
	same := 0
	icon, err := await(ctx, fmt.Sprintf("an icon of %d pixels", slot), func() (Window, bool, error) {
		now, err := s.Icons()
		if len(now) != 1 || len(last) != 1 || now[0] != last[0] {
			same = 0
		}
		same++
		last = now
		if err != nil || len(now) != 1 {
			return Window{}, false, err
		}
		return now[0], same >= steady && min(now[0].Place.Dx(), now[0].Place.Dy()) == slot, nil
	})
	if err != nil {
		err = fmt.Errorf("%w; what is there: %v", err, last)
	}
	return icon, err
}

// AwaitPicture waits until what is to be seen at a place satisfies, and returns it; on an error what was seen last.
func (s *Screen) AwaitPicture(ctx context.Context, at image.Rectangle, what string, holds func(*image.RGBA) bool) (*image.RGBA, error) {
	return await(ctx, what, func() (*image.RGBA, bool, error) {
		picture, err := s.Picture(at)
		return picture, err == nil && holds(picture), err
	})
}

// AwaitTitle waits until the one icon's window has a name.
func (s *Screen) AwaitTitle(ctx context.Context, title string) error {
	var last string
	_, err := await(ctx, fmt.Sprintf("an icon with the title %q", title), func() (bool, bool, error) {
		icons, err := s.Icons()
		if err != nil || len(icons) != 1 {
			return false, false, err
		}
		last = icons[0].Name
		return true, last == title, nil
	})
	if err != nil {
		err = fmt.Errorf("%w; it was %q", err, last)
	}
	return err
}

// Click moves the pointer to the middle of a window and presses a button: 1 is the left one.
func (d *Desktop) Click(ctx context.Context, w Window, button int) error {
	middle := w.Place.Min.Add(w.Place.Max).Div(2)
	_, err := d.tool(ctx, nil, "xdotool", "mousemove", strconv.Itoa(middle.X), strconv.Itoa(middle.Y),
		"click", strconv.Itoa(button))
	return err
}

// Press presses keys one after another, by the names that X gives them: "Down", "Return".
func (d *Desktop) Press(ctx context.Context, keys ...string) error {
	_, err := d.tool(ctx, nil, "xdotool", append([]string{"key", "--delay", "5"}, keys...)...)
	return err
}

// isEmbedded tells whether a window is in another one than the root.
func (s *Screen) isEmbedded(w Window) (bool, error) {
	tree, err := xproto.QueryTree(s.conn, xproto.Window(w.ID)).Reply()
	if vanished(err) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("find what window %#x is in: %w", w.ID, err)
	}
	return tree.Parent != s.root, nil
}

// Destroy takes a window away, whosever it is, as a panel does with an icon that it had not yet promised to give back when
// it died.
func (s *Screen) Destroy(w Window) error {
	if err := xproto.DestroyWindowChecked(s.conn, xproto.Window(w.ID)).Check(); err != nil {
		return fmt.Errorf("destroy window %#x: %w", w.ID, err)
	}
	return nil
}
