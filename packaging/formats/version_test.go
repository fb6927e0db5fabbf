//go:build packages

package formats

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inOrder are versions, each older than the next.
var inOrder = []string{
	"0.9.0-git20261123221500.gffffff0", "0.9.0-git20261123221501.g0000001", "0.9.0", "0.9.0+9.gfedcba9", "0.9.0+12.g0123456", "0.9.1-rc1",
	"0.9.1",
}

// older says whether a package manager takes one version for older than another.
var older = map[string]func(t *testing.T, one, other string) bool{
	"deb": func(_ *testing.T, one, other string) bool {
		return exec.Command("dpkg", "--compare-versions", one, "lt", other).Run() == nil
	},
	"rpm": func(t *testing.T, one, other string) bool {
		return strings.TrimSpace(string(output(t, "rpm", "--eval", `%{lua:print(rpm.vercmp("`+one+`", "`+other+`"))}`))) == "-1"
	},
	"arch": func(t *testing.T, one, other string) bool {
		return strings.TrimSpace(string(output(t, "vercmp", one, other))) == "-1"
	},
}

func TestNewerVersionsAreNewerForEveryPackageManager(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range names {
		for _, file := range []string{"etc/file", "usr/share/man/man1/page.1"} {
			path := filepath.Join(dir, "trees", name, file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	versions := make(map[string][]string)
	for _, v := range inOrder {
		ctx, cancel := context.WithTimeout(context.Background(), readPatience)
		cmd := exec.CommandContext(ctx, "../nfpm/build.sh", filepath.Join(dir, "trees"), filepath.Join(dir, v), v, "nobody <nobody@localhost>")
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("%s: %v: %s", v, err, out)
		}
		for _, format := range formats {
			versions[format] = append(versions[format], find(t, filepath.Join(dir, v), "netvmd", format).version(t))
		}
	}
	for format, v := range versions {
		for i := range v[1:] {
			if !older[format](t, v[i], v[i+1]) || older[format](t, v[i+1], v[i]) {
				t.Errorf("%s: %s is not older than %s", format, v[i], v[i+1])
			}
		}
	}
}

// version is what the package says of itself, as its package manager compares it.
func (a archive) version(t *testing.T) string {
	t.Helper()
	switch a.format {
	case "deb":
		return strings.TrimSpace(string(output(t, "dpkg-deb", "--field", a.file, "Version")))
	case "rpm":
		return a.query(t, "%{VERSION}")[0]
	default:
		return a.pkginfo(t, "pkgver")[0]
	}
}
