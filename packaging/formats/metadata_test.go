//go:build packages

package formats

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// added is what a package has beside the files that make install puts somewhere: what its distribution asks for.
var added = map[string][]string{
	"deb":  {"usr/share/doc/NAME/copyright", "usr/share/doc/NAME/changelog.gz", "usr/share/lintian/overrides/NAME"},
	"rpm":  {"usr/share/licenses/NAME/LICENSE"},
	"arch": {"usr/share/licenses/NAME/LICENSE", ".PKGINFO", ".MTREE", ".INSTALL"},
}

// withScripts are the packages that do something when they come and go.
var withScripts = []string{"netvmd", "netvmd-vm"}

// configuration is what admins change, and so what an upgrade must keep, by its package.
var configuration = map[string][]string{
	"netvmd":      {"etc/netvmd/netvmd.toml", "etc/qubes/post-install.d/30-netvmd.sh"},
	"netvmd-vm":   {"etc/qubes/post-install.d/30-netvmd-vm.sh"},
	"netvmd-tray": {"etc/xdg/autostart/netvm-tray-plain.desktop", "etc/xdg/autostart/netvm-tray.desktop"},
}

// filesOf is what make install makes, by the paths below the root.
func filesOf(t *testing.T, dir string) map[string]entry {
	t.Helper()
	found := make(map[string]entry)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		e := entry{mode: info.Mode()}
		if info.Mode()&fs.ModeSymlink != 0 {
			e.link, err = os.Readlink(path)
		} else {
			e.text, err = os.ReadFile(path)
		}
		found[name] = e
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// packagedAs is the path under which a package has a file of make install: pages are compressed, as each of the three
// distributions has it.
func packagedAs(path string) string {
	if strings.HasPrefix(path, "usr/share/man/") {
		return path + ".gz"
	}
	return path
}

func TestEveryInstalledFileIsInOnePackage(t *testing.T) {
	release := built(t)
	want := filesOf(t, installed(t))
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			in := make(map[string]string) // the package that has a path
			for _, name := range names {
				a := find(t, release, name, format)
				for path, e := range a.files(t) {
					if e.mode.IsDir() || slices.Contains(a.added(), path) {
						continue
					}
					if other, twice := in[path]; twice {
						t.Errorf("%s is in %s and in %s", path, other, name)
					}
					in[path] = name
					a.agrees(t, path, e, want)
				}
			}
			for path := range want {
				if in[packagedAs(path)] == "" {
					t.Errorf("%s is in no package", packagedAs(path))
				}
			}
		})
	}
}

// agrees compares what a package has at a path with what make install puts there.
func (a archive) agrees(t *testing.T, path string, e entry, want map[string]entry) {
	t.Helper()
	w, known := want[path]
	if page := strings.TrimSuffix(path, ".gz"); !known && packagedAs(page) == path {
		w, known = want[page]
	}
	switch {
	case !known:
		t.Errorf("%s has %s, which make install does not put there", a.name, path)
	case e.mode.Type() != w.mode.Type() || e.link != w.link || e.mode.IsRegular() && e.mode != w.mode:
		t.Errorf("%s has %s as %v %q, and make install as %v %q", a.name, path, e.mode, e.link, w.mode, w.link)
	case !bytes.Equal(unzipped(t, path, e.text), w.text):
		t.Errorf("%s has another %s than make install", a.name, path)
	}
}

func (a archive) added() (paths []string) {
	for _, path := range added[a.format] {
		paths = append(paths, strings.ReplaceAll(path, "NAME", a.name))
	}
	return paths
}

func TestPackagesHoldWhatTheyMay(t *testing.T) {
	each(t, built(t), func(t *testing.T, a archive) {
		files := a.files(t)
		for _, path := range a.added() {
			if _, there := files[path]; !there && (path != ".INSTALL" || slices.Contains(withScripts, a.name)) {
				t.Errorf("%s is missing", path)
			}
		}
		for path, e := range files {
			if e.owner != "root:root" {
				t.Errorf("%s belongs to %s", path, e.owner)
			}
			if !slices.Contains([]fs.FileMode{fs.ModeDir | 0o755, 0o644, 0o755}, e.mode) && e.mode.Type() != fs.ModeSymlink {
				t.Errorf("%s is %v", path, e.mode)
			}
		}
		got := a.configuration(t)
		slices.Sort(got)
		if want := configuration[a.name]; !slices.Equal(got, want) {
			t.Errorf("configuration files are %q, want %q", got, want)
		}
	})
}

// What is of this machine alone has no place in a package: the folders that it was built in would be the least of it.
func TestPackagesTellNothingOfTheMachineThatBuiltThem(t *testing.T) {
	checkout, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	private := []string{checkout, os.TempDir() + "/"}
	for _, v := range []string{"GOMODCACHE", "GOCACHE", "GOROOT"} {
		private = append(private, strings.TrimSpace(string(output(t, "go", "env", v))))
	}
	each(t, built(t), func(t *testing.T, a archive) {
		for path, e := range a.files(t) {
			for _, p := range private {
				if bytes.Contains(unzipped(t, path, e.text), []byte(p)) {
					t.Errorf("%s holds %s", path, p)
				}
			}
		}
		if a.format == "rpm" {
			if host, err := os.Hostname(); err != nil || a.query(t, "%{BUILDHOST}")[0] == host {
				t.Errorf("it was built on %s (%v)", host, err)
			}
		}
	})
}
