package main

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"os"
	"strings"
	"testing"

	"netvmd/internal/lab/desktop"
	"netvmd/internal/lab/glance"
	"netvmd/tray/icons"
	"netvmd/tray/view"
	"netvmd/tray/view/examples"
)

const (
	// enough is the share of the pixels in which any two icons must differ.
	enough = 0.08
	// filled is the share of its place, from edge to edge, that an icon must reach over on its longer side. The rest is
	// free for dom0, which needs two pixels on each side.
	filled = 0.75
)

// looksLike tells whether an icon's place shows its picture, neither scaled nor moved.
func looksLike(seen *image.RGBA, icon view.Icon, size int, kind desktop.Kind) bool {
	drawing, err := png.Decode(bytes.NewReader(icons.PNG(icon, size)))
	return err == nil && glance.Shows(seen, drawing, kind != desktop.Tint2)
}

// ink is the part of a picture that differs from its corner.
func ink(p *image.RGBA) image.Rectangle {
	var box image.Rectangle
	for y := range p.Rect.Dy() {
		for x := range p.Rect.Dx() {
			if p.RGBAAt(x, y) != p.RGBAAt(0, 0) {
				box = box.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	return box
}

// keep writes a picture for whoever looks into a failure.
func (s *scene) keep(picture *image.RGBA) {
	s.t.Helper()
	file, err := os.CreateTemp("", strings.ReplaceAll(s.t.Name(), "/", "-")+"-*.png")
	if err != nil {
		s.t.Errorf("keep a picture: %v", err)
		return
	}
	defer file.Close() // an error of Encode tells more
	if err := png.Encode(file, picture); err != nil {
		s.t.Errorf("keep a picture: %v", err)
	}
	s.t.Logf("what was seen is in %s", file.Name())
}

// onePerIcon are the first examples, one for each icon.
func onePerIcon(t *testing.T) []examples.Example {
	t.Helper()
	some := examples.All()[:len(view.Icons)]
	for i, e := range some {
		if got := shown(e.Known).Icon; got != view.Icons[i] {
			t.Fatalf("example %s has the icon %s, not %s", e.Name, got, view.Icons[i])
		}
	}
	return some
}

func overPanels(t *testing.T, test func(*testing.T, desktop.Kind)) {
	for _, kind := range []desktop.Kind{desktop.Trayer, desktop.Tint2} {
		t.Run(string(kind), func(t *testing.T) { test(t, kind) })
	}
}

func TestEveryStateIsToldAtAGlanceAndSharpAtEachSize(t *testing.T) {
	overPanels(t, func(t *testing.T, kind desktop.Kind) {
		for _, slot := range []int{22, 24, 32, 48} {
			t.Run(fmt.Sprintf("%d pixels", slot), func(t *testing.T) {
				s, icon := docked(t, kind, slot)
				var pictures []glance.Levels
				for _, e := range onePerIcon(t) {
					s.become(e.Known)
					picture := s.settle(icon, shown(e.Known))
					if box := ink(picture); float64(max(box.Dx(), box.Dy())) < filled*float64(slot) {
						t.Errorf("%s fills %v of %v", e.Name, box.Size(), picture.Rect.Size())
					}
					pictures = append(pictures, glance.LevelsOf(picture))
				}
				for i, a := range pictures {
					for j, b := range pictures[:i] {
						if d := glance.Apart(a, b); d < enough {
							t.Errorf("%s and %s differ in %.1f %% of the pixels", view.Icons[i], view.Icons[j], 100*d)
						}
					}
				}
			})
		}
	})
}
