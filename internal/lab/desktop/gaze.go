package desktop

import (
	"context"
	"fmt"
	"image"
	"slices"
	"time"

	"github.com/jezek/xgb/damage"
	"github.com/jezek/xgb/xproto"
)

// Gaze sees what changes at a place of the screen, when the X server says so (its extension Damage): nothing looks again and
// again, as that would take time from what is measured.
type Gaze struct {
	screen *Screen // a connection of its own
	at     image.Rectangle
	sights chan sight // capacity 1: the newest
	last   sight
}

// sight is what was to be seen from a moment on.
type sight struct {
	at      time.Time
	picture *image.RGBA
}

// Gaze begins to look at a place. Close it.
func (s *Screen) Gaze(ctx context.Context, at image.Rectangle) (*Gaze, error) {
	own, err := openScreen(ctx, s.Display)
	if err != nil {
		return nil, err
	}
	g := &Gaze{screen: own, at: at, sights: make(chan sight, 1)}
	if err := g.begin(); err != nil {
		own.close()
		return nil, fmt.Errorf("look at %v: %w", at, err)
	}
	return g, nil
}

func (g *Gaze) begin() error {
	conn := g.screen.conn
	if err := damage.Init(conn); err != nil {
		return err
	}
	if _, err := damage.QueryVersion(conn, 1, 1).Reply(); err != nil { // without which the server refuses all else
		return err
	}
	id, err := damage.NewDamageId(conn)
	if err != nil {
		return err
	}
	if err := damage.CreateChecked(conn, id, xproto.Drawable(g.screen.root), damage.ReportLevelNonEmpty).Check(); err != nil {
		return err
	}
	if g.last.picture, err = g.screen.Picture(g.at); err != nil {
		return err
	}
	g.last.at = time.Now()
	go g.look(id, g.last.picture)
	return nil
}

// look looks after each change on the screen until the connection ends.
func (g *Gaze) look(id damage.Damage, before *image.RGBA) {
	defer close(g.sights)
	for {
		event, failed := g.screen.conn.WaitForEvent()
		if event == nil && failed == nil {
			return // it was closed
		}
		if _, is := event.(damage.NotifyEvent); !is {
			continue
		}
		damage.Subtract(g.screen.conn, id, 0, 0) // all of it, so that the next change is told
		now, err := g.screen.Picture(g.at)
		if err != nil {
			return
		}
		if slices.Equal(now.Pix, before.Pix) {
			continue
		}
		before = now
		select {
		case <-g.sights:
		default:
		}
		g.sights <- sight{time.Now(), now} // nobody else sends
	}
}

// Await waits until what is to be seen satisfies, and tells since when it was to be seen.
func (g *Gaze) Await(ctx context.Context, what string, holds func(*image.RGBA) bool) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !holds(g.last.picture) {
		select {
		case next, open := <-g.sights:
			if !open {
				return time.Time{}, fmt.Errorf("%s: the X server is gone", what)
			}
			g.last = next
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%s is not to be seen: %w", what, ctx.Err())
		}
	}
	return g.last.at, nil
}

// Close ends the looking.
func (g *Gaze) Close() { g.screen.close() }
