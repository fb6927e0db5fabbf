// Package icons holds the tray's pictures: PNGs that `make icons` renders from the drawings in packaging/icons.
//
// Each icon is drawn three times, as no drawing is sharp at every size: on a grid of 16 pixels; on one of 22, which also
// serves 24 with a pixel more around it; and on one of 16 units, of which each is 2, 3 or 4 whole pixels at 32, 48 and
// 64. dom0 replaces an icon's colours by one hue, hence two tones and their shapes tell everything. What works is light
// with a dark rim, what does not is dark with a light one, so that either stands out from any panel.
package icons

import (
	"embed"
	"fmt"
	"io/fs"
	"path"

	"netvmd/tray/view"
)

// App is the icon of the program itself, which its desktop file and its notifications name.
const App view.Icon = "netvm-tray"

// All are the icons that are drawn: the program's, and one a state.
var All = append([]view.Icon{App}, view.Icons...)

// Sizes are the widths, and heights, of the pictures in pixels, ascending: those of the hicolor theme that panels ask
// for. The Makefile's ICON_SIZES are the same.
var Sizes = []int{16, 22, 24, 32, 48, 64}

// made is what was rendered before the package was compiled, be it nothing.
//
//go:embed all:png
var made embed.FS

type key struct {
	icon view.Icon
	size int
}

var pictures, missing = load(made)

// load reads every picture once, as a reader of an embed.FS gets a copy each time. It also names those that are missing.
func load(files fs.FS) (loaded map[key][]byte, missing []string) {
	loaded = make(map[key][]byte)
	for _, icon := range All {
		for _, size := range Sizes {
			name := path.Join("png", fmt.Sprint(size), string(icon)+".png")
			png, err := fs.ReadFile(files, name)
			if err != nil || len(png) == 0 {
				missing = append(missing, name)
				continue
			}
			loaded[key{icon, size}] = png
		}
	}
	return loaded, missing
}

// Check says which pictures are missing, as they are when the program was compiled without `make icons` before it.
func Check() error { return complain(missing) }

func complain(missing []string) error {
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("tray/icons: %d pictures are missing, the first being %s: run `make icons` and compile again", len(missing), missing[0])
}

// PNG is the icon's smallest picture of at least size pixels, or else its largest. It is the same slice each time, which
// nobody may change: toolkits keep pointers into it. An icon that is not known, or not made (see Check), gives nil.
func PNG(icon view.Icon, size int) []byte {
	for _, s := range Sizes {
		if s >= size {
			return pictures[key{icon, s}]
		}
	}
	return pictures[key{icon, Sizes[len(Sizes)-1]}]
}
