package icons

import (
	"image"
	"image/color"
	"math"
)

// levels are what is left of a picture when its colours are taken away: its grey levels from 0 to 255, row by row.
type levels []float64

// A panel draws an icon over its background. dom0's, for an icon that comes from another domain, then also tints it.
type panel struct {
	name       string
	background color.NRGBA
	label      *color.NRGBA // the colour of the domain's label, nil for a panel that does not tint
}

// panels are light, mid and dark ones, plain and with every label that Qubes has.
func panels() []panel {
	var all []panel
	for _, background := range []struct {
		name  string
		color color.NRGBA
	}{
		{"light", rgb(0xdc, 0xda, 0xd5)}, {"mid", rgb(0x80, 0x80, 0x80)}, {"dark", rgb(0x2e, 0x34, 0x36)},
	} {
		all = append(all, panel{background.name, background.color, nil})
		for _, label := range []struct {
			name  string
			color color.NRGBA
		}{
			{"red", rgb(0xcc, 0, 0)}, {"orange", rgb(0xf5, 0x79, 0)}, {"yellow", rgb(0xed, 0xd4, 0)},
			{"green", rgb(0x73, 0xd2, 0x16)}, {"gray", rgb(0x55, 0x57, 0x53)}, {"blue", rgb(0x34, 0x65, 0xa4)},
			{"purple", rgb(0x75, 0x50, 0x7b)}, {"black", rgb(0, 0, 0)},
		} {
			all = append(all, panel{background.name + " tinted " + label.name, background.color, &label.color})
		}
	}
	return all
}

func rgb(r, g, b uint8) color.NRGBA { return color.NRGBA{r, g, b, 0xff} }

// draw gives what the panel shows of a picture. dom0 takes the top left pixel for the background and leaves it alone:
// tint_tray_and_update in qubes-gui-daemon's trayicon.c.
func (p panel) draw(picture *image.NRGBA) levels {
	shown := make(levels, 0, len(picture.Pix)/4)
	known := make(map[color.NRGBA]float64) // a picture has few colours
	for y := picture.Rect.Min.Y; y < picture.Rect.Max.Y; y++ {
		for x := picture.Rect.Min.X; x < picture.Rect.Max.X; x++ {
			pixel := picture.NRGBAAt(x, y)
			if _, is := known[pixel]; !is {
				known[pixel] = p.level(over(pixel, p.background), over(picture.NRGBAAt(0, 0), p.background))
			}
			shown = append(shown, known[pixel])
		}
	}
	return shown
}

// level is what the panel makes of an opaque pixel, given the one at the top left.
func (p panel) level(pixel, topLeft color.NRGBA) float64 {
	if p.label == nil || pixel == topLeft {
		return luma(pixel)
	}
	return luma(tint(pixel, *p.label))
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

// tint gives a colour the label's hue and saturation, and leaves it its lightness, as HSL has them. Of the hue only
// this is needed: how far each channel stands between the least and the greatest.
func tint(c, label color.NRGBA) color.NRGBA {
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

// differ is the share of the pixels, from 0 to 1, of which two pictures of one size differ by more than 32 of the 255
// levels, which is what the eye tells apart at a glance.
func differ(a, b levels) float64 {
	n := 0
	for i := range a {
		if math.Abs(a[i]-b[i]) > 32 {
			n++
		}
	}
	return float64(n) / float64(len(a))
}

// stands is the share of the pixels that differ as much from the panel's background.
func (p panel) stands(shown levels) float64 {
	empty := make(levels, len(shown))
	for i := range empty {
		empty[i] = luma(p.background)
	}
	return differ(shown, empty)
}
