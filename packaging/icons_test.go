package packaging_test

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
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
	var want []string
	for _, icon := range icons.All {
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

func TestMakeIcons(t *testing.T) {
	dir := t.TempDir()
	made := func(args ...string) string {
		t.Helper()
		out, err := makeCommand(append([]string{"icons", "PNG=" + dir}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("make icons %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	made()
	for _, icon := range icons.All {
		for _, size := range icons.Sizes {
			got, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(size), string(icon)+".png"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, icons.PNG(icon, size)) {
				t.Errorf("%s at %d is not what the tray was compiled with: run make icons", icon, size)
			}
		}
	}
	if out := made(); !strings.Contains(out, "Nothing to be done") {
		t.Errorf("a second time it does something:\n%s", out)
	}
	// -W: as if that drawing had just been changed; -n: only say what would be done.
	out := made("-n", "-W", "packaging/icons/22/netvm-vpn.svg")
	for _, size := range []int{22, 24} {
		if want := fmt.Sprintf("%s/%d/netvm-vpn.png", dir, size); !strings.Contains(out, want) {
			t.Errorf("with the drawing for 22 changed, %s is not made again", want)
		}
	}
	if n := strings.Count(out, "rsvg-convert"); n != 2 {
		t.Errorf("with the drawing for 22 changed, %d pictures are made again, want 2:\n%s", n, out)
	}
}
