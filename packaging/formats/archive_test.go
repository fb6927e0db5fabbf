//go:build packages

package formats

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// readPatience is for a program that reads a package; each takes less than a second.
const readPatience = time.Minute

// The packages, and the formats of each.
var (
	names   = []string{"netvmd", "netvmd-vm", "netvmd-tray", "netvmd-dom0"}
	formats = []string{"deb", "rpm", "arch"}
)

// endings are those of the packages' files. A name goes on with a version, which begins with a digit.
var endings = map[string]string{"deb": "_[0-9]*.deb", "rpm": "-[0-9]*.rpm", "arch": "-[0-9]*.pkg.tar.zst"}

// archive is a package's file.
type archive struct {
	name, format, file string
}

// find is the one file that a folder has of a package.
func find(t *testing.T, dir, name, format string) archive {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, name+endings[format]))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s has %q of %s for %s, want one file (%v)", dir, found, name, format, err)
	}
	return archive{name, format, found[0]}
}

// each runs a test for every package in a folder.
func each(t *testing.T, dir string, check func(*testing.T, archive)) {
	t.Helper()
	for _, format := range formats {
		for _, name := range names {
			t.Run(format+" of "+name, func(t *testing.T) { check(t, find(t, dir, name, format)) })
		}
	}
}

// output is what a program prints. It must succeed, and what it says on standard error is shown if it does not.
func output(t *testing.T, program string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TZ=UTC")
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v: %s%s", program, args, err, out, complaints.String())
	}
	return out
}

// entry is what a package holds at a path.
type entry struct {
	mode  fs.FileMode // its kind too
	owner string      // user:group
	link  string      // where a symbolic link leads
	text  []byte
	at    time.Time // of its last change
}

// files are a package's entries by their paths, without the leading slash. What Arch keeps of the package itself is
// among them: .PKGINFO, .MTREE and .INSTALL.
func (a archive) files(t *testing.T) map[string]entry {
	t.Helper()
	if a.format == "deb" {
		return unpack(t, output(t, "dpkg-deb", "--fsys-tarfile", a.file))
	}
	found := unpack(t, output(t, "bsdtar", "--format=pax", "-cf", "-", "@"+a.file))
	if a.format == "rpm" {
		// An rpm's archive has numbers for its owners, which rpm overrules by its header's names.
		for path, owner := range a.rpmOwners(t) {
			e := found[path]
			e.owner = owner
			found[path] = e
		}
	}
	return found
}

func (a archive) rpmOwners(t *testing.T) map[string]string {
	t.Helper()
	owners := make(map[string]string)
	for _, line := range a.query(t, `[%{FILENAMES}\t%{FILEUSERNAME}:%{FILEGROUPNAME}\n]`) {
		path, owner, _ := strings.Cut(line, "\t")
		owners[strings.TrimPrefix(path, "/")] = owner
	}
	return owners
}

// query asks rpm about its package, a line an answer.
func (a archive) query(t *testing.T, format string) []string {
	t.Helper()
	return lines(output(t, "rpm", "--query", "--package", "--nosignature", "--queryformat", format, a.file))
}

func lines(text []byte) []string {
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

func unpack(t *testing.T, archive []byte) map[string]entry {
	t.Helper()
	found := make(map[string]entry)
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		owner := h.Uname + ":" + h.Gname
		if owner == ":" && h.Uid == 0 && h.Gid == 0 {
			owner = "root:root"
		}
		path := strings.Trim(strings.TrimPrefix(h.Name, "."), "/")
		if strings.HasPrefix(h.Name, ".") && !strings.HasPrefix(h.Name, "./") {
			path = h.Name // Arch's own files
		}
		if _, twice := found[path]; twice {
			t.Errorf("%s is there twice", path)
		}
		found[path] = entry{h.FileInfo().Mode(), owner, h.Linkname, text, h.ModTime}
	}
}

// configuration lists the paths that the package manager keeps as the admin changed them.
func (a archive) configuration(t *testing.T) []string {
	t.Helper()
	var paths []string
	switch a.format {
	case "deb":
		paths = lines(unpack(t, output(t, "dpkg-deb", "--ctrl-tarfile", a.file))["conffiles"].text)
	case "rpm":
		// noreplace: a changed file stays, and the new one is put beside it.
		for _, line := range a.query(t, `[%{FILENAMES}\t%{FILEFLAGS:fflags}\n]`) {
			if path, flags, _ := strings.Cut(line, "\t"); strings.Contains(flags, "c") && strings.Contains(flags, "n") {
				paths = append(paths, path)
			}
		}
	case "arch":
		paths = a.pkginfo(t, "backup")
	}
	for i, path := range paths {
		paths[i] = strings.TrimPrefix(path, "/")
	}
	return paths
}

// pkginfo are the values that Arch's .PKGINFO has for a key.
func (a archive) pkginfo(t *testing.T, key string) (values []string) {
	t.Helper()
	info := output(t, "bsdtar", "-xOf", a.file, ".PKGINFO")
	for _, m := range regexp.MustCompile(`(?m)^`+key+` = (.*)$`).FindAllSubmatch(info, -1) {
		values = append(values, string(m[1]))
	}
	return values
}

// unzipped is a text that may be compressed.
func unzipped(t *testing.T, path string, text []byte) []byte {
	t.Helper()
	if !strings.HasSuffix(path, ".gz") {
		return text
	}
	r, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return plain
}
