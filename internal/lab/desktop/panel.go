package desktop

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"github.com/jezek/xgb/xproto"

	"netvmd/internal/lab"
)

// Kind is a program that shows tray icons.
type Kind string

// The panels. Both are XEmbed trays: freedesktop.org, "System Tray Protocol".
const (
	Trayer Kind = "trayer"
	Tint2  Kind = "tint2"
)

// Panel is a panel that runs.
type Panel struct {
	screen  *Screen
	process *lab.Process
}

// tint2Config is a panel with nothing but a tray. Its height is that of the place of an icon.
const tint2Config = `rounded = 0
border_width = 0
background_color = #303030 100
border_color = #000000 0
panel_items = S
panel_monitor = all
panel_position = top left horizontal
panel_size = 300 %d
panel_margin = 0 0
panel_padding = 0 0 0
panel_background_id = 1
panel_layer = top
strut_policy = none
autohide = 0
systray_padding = 0 0 0
systray_background_id = 0
systray_sort = left2right
systray_icon_size = 0
systray_monitor = 1
`

// trayerBorder is what trayer keeps free above and below the icons together, in pixels.
const trayerBorder = 2

// StartPanel starts a panel at the top left in which each icon has slot by slot pixels, and waits until it owns the
// screen's tray. One at a time.
func (d *Desktop) StartPanel(ctx context.Context, kind Kind, slot int) (*Panel, error) {
	var args []string
	switch kind {
	case Trayer:
		args = []string{"--edge", "top", "--align", "left", "--margin", "0", "--widthtype", "request",
			"--heighttype", "pixel", "--height", strconv.Itoa(slot + trayerBorder), "--iconspacing", "0"}
	case Tint2:
		config := d.path("tint2rc")
		if err := os.WriteFile(config, []byte(fmt.Sprintf(tint2Config, slot)), 0o644); err != nil {
			return nil, fmt.Errorf("tint2: %w", err)
		}
		args = []string{"-c", config}
	default:
		return nil, fmt.Errorf("desktop: no panel %q", kind)
	}
	process, err := d.Start(ctx, nil, string(kind), args...)
	if err != nil {
		return nil, err
	}
	p := &Panel{d.Screen, process}
	_, err = await(ctx, fmt.Sprintf("%s's tray", kind), func() (bool, bool, error) {
		owned, err := p.screen.hasTray()
		return owned, owned, err
	})
	return p, err
}

// hasTray tells whether somebody owns the screen's tray.
func (s *Screen) hasTray() (bool, error) {
	atom, err := s.atom("_NET_SYSTEM_TRAY_S0")
	if err != nil {
		return false, err
	}
	reply, err := xproto.GetSelectionOwner(s.conn, atom).Reply()
	if err != nil {
		return false, fmt.Errorf("ask who owns the tray: %w", err)
	}
	return reply.Owner != xproto.WindowNone, nil
}

// Stop ends the panel, as a crash would, and waits until the tray is nobody's.
func (p *Panel) Stop(ctx context.Context) error {
	if err := p.process.Stop(ctx, syscall.SIGKILL); err != nil {
		return err
	}
	_, err := await(ctx, "the end of the tray", func() (bool, bool, error) {
		owned, err := p.screen.hasTray()
		return owned, !owned, err
	})
	return err
}
