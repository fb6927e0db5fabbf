package main

import (
	"image"
	"image/draw"
	"slices"
	"strings"

	"netvmd/internal/lab/desktop"
	"netvmd/internal/lab/glance"
	"netvmd/tray/view"
)

// album is all the pictures of a tray.
type album struct {
	kinds []desktop.Kind
	icons map[string][]*image.RGBA // by example: in each kind of panel, at each size
	menus []captioned
}

type captioned struct {
	name    string
	picture *image.RGBA
}

func newAlbum() *album {
	return &album{kinds: []desktop.Kind{desktop.Trayer, desktop.Tint2}, icons: map[string][]*image.RGBA{}}
}

// The sheet's measures, in pixels.
const (
	sheetWidth = 1400
	margin     = 12
	gap        = 10
	nameWidth  = 170 // of an icon's name
	drawnSize  = 22  // of the drawings that are not screenshots
	columns    = 3   // of menus
	column     = (sheetWidth - 2*margin) / columns
)

// sheet puts the pictures on one sheet.
func (a *album) sheet() *desktop.Sheet {
	s := desktop.NewSheet(sheetWidth)
	y := a.putIcons(s, margin)
	a.putMenus(s, y+2*gap)
	return s
}

// putIcons puts a table there: screenshots, then drawings on other panels. It returns where the table ends.
func (a *album) putIcons(s *desktop.Sheet, y int) int {
	s.Write("In real panels (screenshots): trayer, tint2", image.Pt(margin+nameWidth, y))
	drawn := margin + nameWidth + a.screenshotsWidth()
	s.Write("Drawn on a light, a mid and a dark panel: plain, and as dom0 tints it by each label", image.Pt(drawn, y))
	s.Write("(red, orange, yellow, green, gray, blue, purple, black)", image.Pt(drawn, y+desktop.TextHeight))
	y += 2*desktop.TextHeight + gap
	for i, e := range onePerIcon() {
		x, height := margin+nameWidth, slots[len(slots)-1]
		s.Write(strings.TrimPrefix(string(view.Icons[i]), "netvm-"), image.Pt(margin, y+(height-desktop.TextHeight)/2))
		for _, picture := range a.icons[e.Name] {
			s.Put(picture, image.Pt(x, y+(height-picture.Rect.Dy())/2))
			x += picture.Rect.Dx() + gap/2
		}
		s.Put(drawings(view.Icons[i]), image.Pt(drawn, y+(height-drawnSize)/2))
		y += height + gap
	}
	return y
}

// screenshotsWidth is that of a row's screenshots: trayer makes the places of its icons at least two pixels wider.
func (a *album) screenshotsWidth() int {
	width := gap
	for range a.kinds {
		for _, slot := range slots {
			width += slot + 2 + gap/2
		}
	}
	return width
}

// drawings are an icon on every panel, side by side.
func drawings(icon view.Icon) *image.RGBA {
	drawing, err := drawingOf(icon, drawnSize)
	if err != nil {
		return image.NewRGBA(image.Rectangle{}) // of which icons.Check has told
	}
	panels := glance.Panels()
	all := image.NewRGBA(image.Rect(0, 0, len(panels)*drawnSize, drawnSize))
	for i, p := range panels {
		draw.Draw(all, drawing.Rect.Add(image.Pt(i*drawnSize, 0)), p.Show(drawing), image.Point{}, draw.Src)
	}
	return all
}

// putMenus puts each menu under its name into the column that is the shortest so far, and those that are wider than a column
// below all.
func (a *album) putMenus(s *desktop.Sheet, y int) {
	s.Write("The menus, opened by a click", image.Pt(margin, y))
	var ends [columns]int
	for i := range ends {
		ends[i] = y + desktop.TextHeight + gap
	}
	var wide []captioned
	for _, m := range a.menus {
		if m.picture.Rect.Dx() > column-gap {
			wide = append(wide, m)
			continue
		}
		shortest := slices.Index(ends[:], slices.Min(ends[:]))
		ends[shortest] = m.put(s, image.Pt(margin+shortest*column, ends[shortest]))
	}
	y = slices.Max(ends[:])
	for _, m := range wide {
		y = m.put(s, image.Pt(margin, y))
	}
}

// put puts the picture under its name, and returns where the next has its place.
func (c captioned) put(s *desktop.Sheet, at image.Point) int {
	s.Write(c.name, at)
	at.Y += desktop.TextHeight
	s.Put(c.picture, at)
	return at.Y + c.picture.Rect.Dy() + gap
}
