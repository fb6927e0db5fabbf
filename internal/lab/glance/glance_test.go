package glance

import (
	"image/color"
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
