//go:build packages

package formats

import (
	"bytes"
	"debug/elf"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// program is a package's program, as its linker left it.
func (a archive) program(t *testing.T, path string) *elf.File {
	t.Helper()
	p, err := elf.NewFile(bytes.NewReader(a.files(t)[path].text))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return p
}

func libraries(t *testing.T, p *elf.File) []string {
	t.Helper()
	names, err := p.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestWhatHasNoLibrariesDependsOnNone(t *testing.T) {
	for _, name := range names {
		if name == "netvmd-tray" {
			continue
		}
		a := find(t, built(t), name, "rpm")
		for path, e := range a.files(t) {
			if e.mode == 0o755 && strings.HasPrefix(string(e.text), elf.ELFMAG) {
				if needs := libraries(t, a.program(t, path)); len(needs) > 0 {
					t.Errorf("%s needs %q", path, needs)
				}
			}
		}
		for _, r := range a.query(t, `[%{REQUIRENAME}\n]`) {
			if strings.Contains(r, ".so") {
				t.Errorf("the rpm of %s depends on %s", name, r)
			}
		}
	}
}

const applet = "usr/bin/netvm-tray"

func TestTheTrayDependsOnWhatItIsLinkedWith(t *testing.T) {
	p := find(t, built(t), "netvmd-tray", "deb").program(t, applet)
	glibc := newestGlibc(t, p)
	deb, rpm := depends(t, "netvmd-tray", "deb"), depends(t, "netvmd-tray", "rpm")
	for _, library := range libraries(t, p) {
		if owner := debianPackage(t, library); !regexp.MustCompile(`(^|[ ,|])` + regexp.QuoteMeta(owner) + `([ ,|]|$)`).MatchString(deb) {
			t.Errorf("the deb does not depend on %s, which has %s: %s", owner, library, deb)
		}
		symbol := "()"
		if library == "libc.so.6" {
			symbol = "(GLIBC_" + glibc + ")"
		}
		if !strings.Contains(rpm, library+symbol+"(64bit)") {
			t.Errorf("the rpm does not depend on %s%s: %s", library, symbol, rpm)
		}
	}
	if !strings.Contains(deb, "libc6 (>= "+glibc+")") {
		t.Errorf("the deb wants another libc6 than %s: %s", glibc, deb)
	}
}

// needs is which other package of ours a package depends on.
var needs = map[string]string{"netvmd": "netvmd-vm", "netvmd-tray": "netvmd", "netvmd-dom0": "netvmd-vm"}

func TestPackagesDependOnEachOthersOwnVersion(t *testing.T) {
	for name, other := range needs {
		for format, want := range map[string]string{
			"deb": other + " (= " + version + "),", "rpm": other + " = " + version + ",", "arch": other + "=" + version + ",",
		} {
			if got := depends(t, name, format) + ","; !strings.Contains(got, want) {
				t.Errorf("%s of %s: it wants %s, and not %s", format, name, got, want)
			}
		}
	}
}

// depends is what a package depends on, in its format's words.
func depends(t *testing.T, name, format string) string {
	t.Helper()
	a := find(t, built(t), name, format)
	switch format {
	case "deb":
		return strings.TrimSpace(string(output(t, "dpkg-deb", "--field", a.file, "Depends")))
	case "rpm":
		return strings.Join(a.query(t, `[%{REQUIRENAME} %{REQUIREFLAGS:depflags} %{REQUIREVERSION}\n]`), ", ")
	default:
		return strings.Join(a.pkginfo(t, "depend"), ", ")
	}
}

// newestGlibc is the version of the C library that a program needs at least.
func newestGlibc(t *testing.T, p *elf.File) string {
	t.Helper()
	symbols, err := p.ImportedSymbols()
	if err != nil {
		t.Fatal(err)
	}
	newest := 0
	for _, s := range symbols {
		if minor, is := strings.CutPrefix(s.Version, "GLIBC_2."); is {
			n, err := strconv.Atoi(strings.Split(minor, ".")[0])
			if err != nil {
				t.Fatalf("%s: %v", s.Name, err)
			}
			newest = max(newest, n)
		}
	}
	return "2." + strconv.Itoa(newest)
}

// debianPackage is the one that has a library on this machine.
func debianPackage(t *testing.T, library string) string {
	t.Helper()
	for _, line := range lines(output(t, "dpkg", "--search", "*/"+library)) {
		name, path, _ := strings.Cut(line, ": ")
		if filepath.Base(path) == library {
			return strings.Split(name, ":")[0]
		}
	}
	t.Fatalf("no package has %s", library)
	return ""
}
