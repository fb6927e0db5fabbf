package glance

import (
	"image"
	"image/color"
	"image/draw"
	"testing"
)

func TestTintKeepsLightnessAndTakesTheLabelsHue(t *testing.T) {
	red := rgb(0xcc, 0, 0)
	for _, tc := range []struct {
		name           string
		c, label, want color.NRGBA
	}{
		{"white has no room for a hue", rgb(255, 255, 255), red, rgb(255, 255, 255)},
		{"black has none either", rgb(0, 0, 0), red, rgb(0, 0, 0)},
		{"half grey becomes the pure hue", rgb(0x7f, 0x80, 0x80), red, rgb(255, 0, 0)},
		{"a light grey becomes pale", rgb(191, 191, 191), red, rgb(255, 127, 127)},
		{"a colour loses its own hue", rgb(0, 0, 204), red, rgb(204, 0, 0)},
		{"a label without a hue makes grey", rgb(200, 100, 0), rgb(0, 0, 0), rgb(100, 100, 100)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Tint(tc.c, tc.label); got != tc.want {
				t.Errorf("%v tinted with %v is %v, want %v", tc.c, tc.label, got, tc.want)
			}
		})
	}
}

// seen draws a picture at a place of a grey panel.
func seen(drawing image.Image, at image.Point) *image.RGBA {
	place := image.NewRGBA(image.Rect(0, 0, 8, 6))
	draw.Draw(place, place.Rect, image.NewUniform(color.Gray{0x30}), image.Point{}, draw.Src)
	draw.Draw(place, drawing.Bounds().Add(at), drawing, drawing.Bounds().Min, draw.Over)
	return place
}

func TestShowsTellsTheDrawingInItsPlaceFromEverythingElse(t *testing.T) {
	drawing := image.NewNRGBA(image.Rect(0, 0, 6, 6))
	drawing.SetNRGBA(2, 2, rgb(0xff, 0xff, 0xff))
	drawing.SetNRGBA(3, 2, color.NRGBA{0xff, 0xff, 0xff, 0x80})
	dark := seen(drawing, image.Pt(1, 0))
	dark.SetRGBA(4, 2, color.RGBA{0x60, 0x60, 0x60, 0xff})
	for _, tc := range []struct {
		name   string
		seen   *image.RGBA
		halves bool
		want   bool
	}{
		{"in the middle of its place", seen(drawing, image.Pt(1, 0)), true, true},
		{"a pixel beside it", seen(drawing, image.Pt(2, 0)), true, false},
		{"not there", seen(image.NewNRGBA(drawing.Rect), image.Pt(1, 0)), true, false},
		{"half-transparent pixels too dark", dark, true, false},
		{"half-transparent pixels too dark, and not looked at", dark, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Shows(tc.seen, drawing, tc.halves); got != tc.want {
				t.Errorf("Shows = %t", got)
			}
		})
	}
}

func TestApartIsTheShareOfThePixelsThatTheEyeTellsApart(t *testing.T) {
	if got := Apart(Levels{0, 100, 200, 255}, Levels{32, 133, 200, 0}); got != 0.5 {
		t.Errorf("two of four pixels differ by more than 32 levels, Apart is %v", got)
	}
}
