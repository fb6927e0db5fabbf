package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
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
	// rounding is by how much a channel may differ after half-transparent pixels were drawn by somebody else.
	rounding = 2
	// filled is the share of its place, from edge to edge, that an icon must reach over on its longer side. The rest is
	// free for dom0, which needs two pixels on each side.
	filled = 0.75
)

// looksLike tells whether an icon's place shows its picture, pixel by pixel, in its middle: neither scaled nor moved. With
// halves false, half-transparent pixels are not looked at: tint2 draws them too dark, as it takes the colours that X
// multiplies with their opacity for plain ones.
func looksLike(seen *image.RGBA, icon view.Icon, size int, halves bool) bool {
	drawing, err := png.Decode(bytes.NewReader(icons.PNG(icon, size)))
	if err != nil {
		return false
	}
	ground := seen.RGBAAt(0, 0) // which the icon leaves free
	corner := seen.Rect.Size().Sub(drawing.Bounds().Size()).Div(2)
	for y := range seen.Rect.Dy() {
		for x := range seen.Rect.Dx() {
			front := color.NRGBA{}
			if at := image.Pt(x, y).Sub(corner); at.In(drawing.Bounds()) {
				front = color.NRGBAModel.Convert(drawing.At(at.X, at.Y)).(color.NRGBA)
			}
			half := front.A > 0 && front.A < 0xff
			if (halves || !half) && !near(seen.RGBAAt(x, y), front, ground) {
				return false
			}
		}
	}
	return true
}

// near tells whether a pixel is what one over another gives.
func near(seen color.RGBA, front color.NRGBA, ground color.RGBA) bool {
	a := int(front.A)
	for _, c := range [][3]uint8{{seen.R, front.R, ground.R}, {seen.G, front.G, ground.G}, {seen.B, front.B, ground.B}} {
		off := int(c[0]) - (a*int(c[1])+(255-a)*int(c[2]))/255
		if off < -rounding || off > rounding {
			return false
		}
	}
	return true
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
