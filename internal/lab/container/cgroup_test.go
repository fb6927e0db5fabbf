package container

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mounted makes a folder with these hierarchies mounted; "" = there is the newer one alone.
func mounted(t testing.TB, hierarchies ...string) string {
	below := t.TempDir()
	for _, h := range hierarchies {
		if err := os.MkdirAll(filepath.Join(below, h), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(below, h, "cgroup.procs"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return below
}

func TestAContainerGetsAGroupWhereSystemdMakesThem(t *testing.T) {
	for _, tc := range []struct {
		name    string
		mounted []string
		line    string
		want    []string // below what is mounted
	}{
		{"the newer hierarchy alone", []string{""}, "0::/user.slice/a.scope", []string{"user.slice/a.scope"}},
		{"the newer one beside the older ones", []string{"systemd", "unified"}, "0::/a", []string{"unified/a"}},
		{"systemd's own among the older ones", []string{"systemd", "unified"}, "9:name=systemd:/a", []string{"systemd/a"}},
		{"the older ones alone", []string{"systemd"}, "0::/a", nil},
		{"one for a controller", []string{"systemd", "memory"}, "4:memory:/a", nil},
		{"a path with a colon", []string{""}, "0::/a:b", []string{"a:b"}},
		{"a group outside of what is mounted", []string{""}, "0::/../a", nil},
		{"no such line", []string{""}, "0:", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			below := mounted(t, tc.mounted...)
			var want []string
			for _, w := range tc.want {
				want = append(want, filepath.Join(below, w))
			}
			if got := hierarchy(below, tc.line); !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

func FuzzHierarchy(f *testing.F) {
	for _, line := range []string{"0::/", "9:name=systemd:/a/b", "0::/../a", "4:memory:/a", "::", "0::a/../../b"} {
		f.Add(line)
	}
	below := mounted(f, "systemd", "unified")
	f.Fuzz(func(t *testing.T, line string) {
		for _, dir := range hierarchy(below, line) {
			if !strings.HasPrefix(dir, below+"/") {
				t.Errorf("%q leads to %q", line, dir)
			}
		}
	})
}
