package glance

import (
	"image"
	"image/color"
)

// rounding is by how much a channel may differ after somebody else has drawn a half-transparent pixel.
const rounding = 2

// Shows tells whether an icon's place shows a drawing, pixel by pixel, in its middle: neither scaled nor moved. The corner
// is the panel's background, as icons leave it free. With halves false, half-transparent pixels are not looked at: tint2
// draws them too dark, as it takes the colours that X has multiplied with their opacity for plain ones.
func Shows(seen *image.RGBA, drawing image.Image, halves bool) bool {
	ground := seen.RGBAAt(seen.Rect.Min.X, seen.Rect.Min.Y)
	corner := seen.Rect.Size().Sub(drawing.Bounds().Size()).Div(2).Add(seen.Rect.Min)
	for y := seen.Rect.Min.Y; y < seen.Rect.Max.Y; y++ {
		for x := seen.Rect.Min.X; x < seen.Rect.Max.X; x++ {
			front := color.NRGBA{}
			if at := image.Pt(x, y).Sub(corner); at.In(drawing.Bounds()) {
				front = color.NRGBAModel.Convert(drawing.At(at.X, at.Y)).(color.NRGBA)
			}
			half := front.A > 0 && front.A < 0xff
			if (halves || !half) && !near(seen.RGBAAt(x, y), over(front, color.NRGBA(ground))) {
				return false
			}
		}
	}
	return true
}

func near(seen color.RGBA, want color.NRGBA) bool {
	for _, c := range [][2]uint8{{seen.R, want.R}, {seen.G, want.G}, {seen.B, want.B}} {
		if max(c[0], c[1])-min(c[0], c[1]) > rounding {
			return false
		}
	}
	return true
}
