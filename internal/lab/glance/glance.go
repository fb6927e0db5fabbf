// Package glance is what a person sees of a tray icon at a glance: grey levels, on the panel of any desktop or on dom0's,
// which tints the icons of other domains.
package glance

import (
	"image"
	"image/color"
	"math"
)

// Levels are what is left of a picture when its colours are taken away: its grey levels from 0 to 255, row by row.
type Levels []float64

// LevelsOf takes the colours away.
func LevelsOf(picture image.Image) Levels {
	bounds := picture.Bounds()
	levels := make(Levels, 0, bounds.Dx()*bounds.Dy())
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			levels = append(levels, luma(color.NRGBAModel.Convert(picture.At(x, y)).(color.NRGBA)))
		}
	}
	return levels
}

// Panel draws an icon over its background. dom0's, for an icon that comes from another domain, then also tints it.
type Panel struct {
	Name       string
	Background color.NRGBA
	Label      *color.NRGBA // the colour of the domain's label, nil for a panel that does not tint
}

// Panels are light, mid and dark ones, plain and with every label that Qubes has.
func Panels() []Panel {
	var all []Panel
	for _, background := range []struct {
		name  string
		color color.NRGBA
	}{
		{"light", rgb(0xdc, 0xda, 0xd5)}, {"mid", rgb(0x80, 0x80, 0x80)}, {"dark", rgb(0x2e, 0x34, 0x36)},
	} {
		all = append(all, Panel{background.name, background.color, nil})
		for _, label := range []struct {
			name  string
			color color.NRGBA
		}{
			{"red", rgb(0xcc, 0, 0)}, {"orange", rgb(0xf5, 0x79, 0)}, {"yellow", rgb(0xed, 0xd4, 0)},
			{"green", rgb(0x73, 0xd2, 0x16)}, {"gray", rgb(0x55, 0x57, 0x53)}, {"blue", rgb(0x34, 0x65, 0xa4)},
			{"purple", rgb(0x75, 0x50, 0x7b)}, {"black", rgb(0, 0, 0)},
		} {
			all = append(all, Panel{background.name + " tinted " + label.name, background.color, &label.color})
		}
	}
	return all
}

func rgb(r, g, b uint8) color.NRGBA { return color.NRGBA{r, g, b, 0xff} }

// Show gives what the panel shows of a picture. dom0 takes the top left pixel for the background and leaves it alone:
// tint_tray_and_update in qubes-gui-daemon's trayicon.c.
func (p Panel) Show(picture *image.NRGBA) *image.NRGBA {
	shown := image.NewNRGBA(picture.Rect)
	ground := over(picture.NRGBAAt(picture.Rect.Min.X, picture.Rect.Min.Y), p.Background)
	for y := picture.Rect.Min.Y; y < picture.Rect.Max.Y; y++ {
		for x := picture.Rect.Min.X; x < picture.Rect.Max.X; x++ {
			pixel := over(picture.NRGBAAt(x, y), p.Background)
			if p.Label != nil && pixel != ground {
				pixel = Tint(pixel, *p.Label)
			}
			shown.SetNRGBA(x, y, pixel)
		}
	}
	return shown
}

func over(front, back color.NRGBA) color.NRGBA {
	mix := func(f, b uint8) uint8 {
		a := float64(front.A) / 255
		return uint8(math.Round(a*float64(f) + (1-a)*float64(b)))
	}
	return rgb(mix(front.R, back.R), mix(front.G, back.G), mix(front.B, back.B))
}

// luma is the brightness of a colour: ITU-R BT.601.
func luma(c color.NRGBA) float64 {
	return 0.299*float64(c.R) + 0.587*float64(c.G) + 0.114*float64(c.B)
}

// Tint gives a colour the label's hue and saturation, and leaves it its lightness, as HSL has them. Of the hue only
// this is needed: how far each channel stands between the least and the greatest.
func Tint(c, label color.NRGBA) color.NRGBA {
	_, lightness := extent(c)
	labelChroma, labelLightness := extent(label)
	if labelChroma == 0 {
		level := uint8(255 * lightness)
		return rgb(level, level, level)
	}
	saturation := labelChroma / (1 - math.Abs(2*labelLightness-1))
	chroma := saturation * (1 - math.Abs(2*lightness-1))
	least := float64(min(label.R, label.G, label.B)) / 255
	channel := func(of uint8) uint8 {
		stands := (float64(of)/255 - least) / labelChroma
		return uint8(255 * (lightness - chroma/2 + chroma*stands))
	}
	return rgb(channel(label.R), channel(label.G), channel(label.B))
}

// extent is HSL's chroma and lightness of a colour, each from 0 to 1.
func extent(c color.NRGBA) (chroma, lightness float64) {
	least, greatest := float64(min(c.R, c.G, c.B))/255, float64(max(c.R, c.G, c.B))/255
	return greatest - least, (greatest + least) / 2
}

// different is by how many of the 255 levels a pixel must differ to count: what the eye tells apart at a glance.
const different = 32

// Apart is the share of the pixels, from 0 to 1, in which two pictures of one size differ.
func Apart(a, b Levels) float64 {
	n := 0
	for i := range a {
		if math.Abs(a[i]-b[i]) > different {
			n++
		}
	}
	return float64(n) / float64(len(a))
}

// StandsOut is the share of the pixels in which a picture differs from the panel's background.
func (p Panel) StandsOut(shown Levels) float64 {
	ground := make(Levels, len(shown))
	for i := range ground {
		ground[i] = luma(p.Background)
	}
	return Apart(shown, ground)
}
