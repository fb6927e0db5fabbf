package icons

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"slices"
	"testing"
	"testing/fstest"

	"netvmd/internal/lab/glance"
	"netvmd/tray/view"
)

// picture is an icon as it was made at a size, the size being one of Sizes.
func picture(t *testing.T, icon view.Icon, size int) *image.NRGBA {
	t.Helper()
	if err := Check(); err != nil {
		t.Fatal(err)
	}
	decoded, err := png.Decode(bytes.NewReader(PNG(icon, size)))
	if err != nil {
		t.Fatalf("%s at %d: %v", icon, size, err)
	}
	p := image.NewNRGBA(decoded.Bounds())
	draw.Draw(p, p.Rect, decoded, p.Rect.Min, draw.Src)
	return p
}

// everyPicture calls check for every icon in every size.
func everyPicture(t *testing.T, check func(icon view.Icon, size int, p *image.NRGBA)) {
	t.Helper()
	for _, icon := range All {
		for _, size := range Sizes {
			check(icon, size, picture(t, icon, size))
		}
	}
}

func TestEveryPictureHasItsSizeAndTwoClearPixelsAtTheEdge(t *testing.T) {
	const clear = 2 // dom0 draws a border there, and takes the top left pixel for the background
	everyPicture(t, func(icon view.Icon, size int, p *image.NRGBA) {
		if p.Rect != image.Rect(0, 0, size, size) {
			t.Errorf("%s at %d is %v", icon, size, p.Rect)
		}
		if at, is := strays(p, p.Rect.Inset(clear)); is {
			t.Errorf("%s at %d is not clear at %v, which is nearer than %d pixels to the edge", icon, size, at, clear)
		}
	})
}

// strays finds a pixel outside a part of a picture that is not wholly transparent.
func strays(p *image.NRGBA, part image.Rectangle) (image.Point, bool) {
	for y := p.Rect.Min.Y; y < p.Rect.Max.Y; y++ {
		for x := p.Rect.Min.X; x < p.Rect.Max.X; x++ {
			if at := image.Pt(x, y); !at.In(part) && p.NRGBAAt(x, y).A != 0 {
				return at, true
			}
		}
	}
	return image.Point{}, false
}

// TestPicturesAreSharp wants the two tones, and next to nothing between them: what lies between is a blurred edge. On the
// small grids there is none; on the large one only what is round or slanted may be smoothed.
func TestPicturesAreSharp(t *testing.T) {
	blurred := map[int]float64{16: 0, 22: 0, 24: 0, 32: 0.5, 48: 0.4, 64: 0.3} // at most this share of what is drawn
	everyPicture(t, func(icon view.Icon, size int, p *image.NRGBA) {
		if got := blur(p); got > blurred[size] {
			t.Errorf("%s at %d is blurred in %.0f %% of its pixels", icon, size, 100*got)
		}
	})
}

// blur is the share of the pixels that are drawn, from 0 to 1, that have neither of the two tones.
func blur(p *image.NRGBA) float64 {
	light, dark := color.NRGBA{0xff, 0xff, 0xff, 0xff}, color.NRGBA{0x11, 0x11, 0x11, 0xff}
	var drawn, between float64
	for y := p.Rect.Min.Y; y < p.Rect.Max.Y; y++ {
		for x := p.Rect.Min.X; x < p.Rect.Max.X; x++ {
			pixel := p.NRGBAAt(x, y)
			if pixel.A == 0 {
				continue
			}
			drawn++
			if pixel != light && pixel != dark {
				between++
			}
		}
	}
	return between / drawn
}

func TestIconsAreGrey(t *testing.T) {
	everyPicture(t, func(icon view.Icon, size int, p *image.NRGBA) {
		for i := 0; i < len(p.Pix); i += 4 {
			if r, g, b := p.Pix[i], p.Pix[i+1], p.Pix[i+2]; r != g || g != b {
				t.Fatalf("%s at %d has the colour %v, of which dom0 would leave the lightness alone", icon, size, p.Pix[i:i+4])
			}
		}
	})
}

// inPanels calls check for every size and every kind of panel, with what is shown of each icon.
func inPanels(t *testing.T, check func(t *testing.T, p glance.Panel, shown map[view.Icon]glance.Levels)) {
	for _, size := range Sizes {
		pictures := make(map[view.Icon]*image.NRGBA)
		for _, icon := range view.Icons {
			pictures[icon] = picture(t, icon, size)
		}
		for _, p := range glance.Panels() {
			t.Run(fmt.Sprintf("%d pixels on a %s panel", size, p.Name), func(t *testing.T) {
				shown := make(map[view.Icon]glance.Levels)
				for icon, picture := range pictures {
					shown[icon] = glance.LevelsOf(p.Show(picture))
				}
				check(t, p, shown)
			})
		}
	}
}

func TestAnyTwoIconsDifferInGreyLevels(t *testing.T) {
	const enough = 0.08 // of the pixels
	inPanels(t, func(t *testing.T, _ glance.Panel, shown map[view.Icon]glance.Levels) {
		for i, a := range view.Icons {
			for _, b := range view.Icons[i+1:] {
				if d := glance.Apart(shown[a], shown[b]); d < enough {
					t.Errorf("%s and %s differ in %.1f %% of the pixels", a, b, 100*d)
				}
			}
		}
	})
}

func TestEveryIconStandsOutFromThePanel(t *testing.T) {
	const enough = 0.15 // of the pixels
	inPanels(t, func(t *testing.T, p glance.Panel, shown map[view.Icon]glance.Levels) {
		for _, icon := range view.Icons {
			if d := p.StandsOut(shown[icon]); d < enough {
				t.Errorf("%s differs from the panel in %.1f %% of the pixels", icon, 100*d)
			}
		}
	})
}

func TestPNGGivesTheSmallestThatIsLargeEnough(t *testing.T) {
	for _, tc := range []struct {
		name       string
		size, want int
	}{
		{"a size that is made", 22, 22},
		{"a size between two", 23, 24},
		{"a size below the least", 1, 16},
		{"no size", 0, 16},
		{"a size beyond the largest", 65, 64},
		{"the largest", 64, 64},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := picture(t, view.Wired, tc.size).Rect.Dx(); got != tc.want {
				t.Errorf("for %d pixels the picture has %d, want %d", tc.size, got, tc.want)
			}
		})
	}
}

func TestPNGGivesTheSameSliceEachTime(t *testing.T) {
	first := PNG(view.VPN, 22)
	if len(first) == 0 {
		t.Fatal(Check())
	}
	if again := PNG(view.VPN, 22); &first[0] != &again[0] {
		t.Error("the second time it was a copy")
	}
	if allocations := testing.AllocsPerRun(10, func() { PNG(view.VPN, 22) }); allocations != 0 {
		t.Errorf("it allocates %v times", allocations)
	}
}

func TestPNGOfAnUnknownIconIsNil(t *testing.T) {
	if got := PNG("netvm-none", 22); got != nil {
		t.Errorf("got %d bytes", len(got))
	}
}

func TestMissingPicturesAreNamed(t *testing.T) {
	files := make(fstest.MapFS)
	for _, icon := range All {
		for _, size := range Sizes {
			files[fmt.Sprintf("png/%d/%s.png", size, icon)] = &fstest.MapFile{Data: []byte("picture")}
		}
	}
	if _, missing := load(files); complain(missing) != nil {
		t.Errorf("with every picture: %v", complain(missing))
	}
	delete(files, "png/22/netvm-wired.png")
	files["png/48/netvm-tray.png"].Data = nil
	loaded, missing := load(files)
	if want := []string{"png/48/netvm-tray.png", "png/22/netvm-wired.png"}; !slices.Equal(missing, want) {
		t.Errorf("missing are %q, want %q", missing, want)
	}
	if want := len(All)*len(Sizes) - 2; len(loaded) != want {
		t.Errorf("%d pictures were loaded, want the %d others", len(loaded), want)
	}
	const want = "tray/icons: 2 pictures are missing, the first being png/48/netvm-tray.png: run `make icons` and compile again"
	if err := complain(missing); err == nil || err.Error() != want {
		t.Errorf("the complaint is %v, want %s", err, want)
	}
}
