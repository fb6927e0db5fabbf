//go:build packages

package formats

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What a distribution's own checker finds is mended, or is explained in an override with its reason.
func TestLintianFindsNothing(t *testing.T) {
	t.Parallel()
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			deb := find(t, built(t), name, "deb").file
			for _, line := range lines(output(t, "lintian", "--allow-root", "--fail-on=none", "--tag-display-limit=0", "--display-info", deb)) {
				switch {
				case strings.HasPrefix(line, "E:"), strings.HasPrefix(line, "W:"):
					t.Error(line)
				case regexp.MustCompile(`(unused|mismatched)-override`).MatchString(line):
					t.Errorf("an override of nothing: %s", line)
				default:
					t.Log(line)
				}
			}
		})
	}
}

// The names in our rpms' archives begin with a slash. rpm takes them as they are meant, and so does rpmlint's cpio only
// when it is told to; to be sure, rpmlint may write nowhere but into a folder of its own. What a filter of ours is about is
// not found by each version.
const rpmlint = `mount --bind "$TMPDIR" "$TMPDIR" && mount -o remount,bind,ro / &&
	rpmlint --config ../nfpm/rpmlint.toml --rpmlintrc ../nfpm/rpmlintrc --ignore-unused-rpmlintrc "$@"`

const relativeCpio = "#!/bin/sh\nPATH=${PATH#*:}\nexec cpio --no-absolute-filenames \"$@\"\n"

func TestRpmlintFindsNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cpio"), []byte(relativeCpio), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), readPatience)
	defer cancel()
	args := []string{"--mount", "sh", "-euc", rpmlint, "sh"}
	for _, name := range names {
		args = append(args, find(t, built(t), name, "rpm").file)
	}
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "TMPDIR="+dir, "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	found := regexp.MustCompile(`(?m)^.*: [EW]: .*$`).FindAllString(string(out), -1)
	for _, line := range found {
		t.Error(line)
	}
	if !strings.Contains(string(out), fmt.Sprintf("%d packages and 0 specfiles checked", len(names))) || err != nil && len(found) == 0 {
		t.Errorf("rpmlint: %v: %s", err, out)
	}
}
