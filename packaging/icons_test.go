package packaging_test

import (
	"fmt"
	"os"
	"path"
	"slices"
	"testing"

	"netvmd/tray/icons"
	"netvmd/tray/view"
)

// pictures are what make install puts into the hicolor theme, in every size and as drawings: the states' icons, and
// the program's.
func pictures() []string {
	var names []string
	in := func(size, extension string) {
		const hicolor = "usr/share/icons/hicolor"
		for _, icon := range view.Icons {
			names = append(names, path.Join(hicolor, size, "status", string(icon)+extension))
		}
		names = append(names, path.Join(hicolor, size, "apps", string(icons.App)+extension))
	}
	for _, size := range icons.Sizes {
		in(fmt.Sprintf("%dx%d", size, size), ".png")
	}
	in("scalable", ".svg")
	return names
}

func TestEveryIconIsDrawnAndNoOther(t *testing.T) {
	want := []string{string(icons.App) + ".svg"}
	for _, icon := range view.Icons {
		want = append(want, string(icon)+".svg")
	}
	slices.Sort(want)
	for _, dir := range []string{"icons", "icons/16", "icons/22"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			if !e.IsDir() {
				got = append(got, e.Name())
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("packaging/%s holds %q, want %q", dir, got, want)
		}
	}
}
