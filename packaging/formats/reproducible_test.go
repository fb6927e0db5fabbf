//go:build packages

package formats

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clonePatience is for a whole build in a folder where nothing was built before.
const clonePatience = 8 * time.Minute

// builder is somebody who builds the packages: their habits, and the machine's name and clock.
type builder struct {
	checkout, home, umask, zone, language, host, age string
}

// build clones the project's last commit, and makes the packages there.
func (b builder) build(t *testing.T, dir string) string {
	t.Helper()
	checkout, dist := filepath.Join(dir, b.checkout), filepath.Join(dir, b.checkout, "dist")
	// The host's name is that of a namespace of its own. Every file is given another age than its commit's.
	script := `hostname "$HOST" && umask "$MASK" && git clone -q "$PROJECT" "$CHECKOUT" && cd "$CHECKOUT" &&
		find . -type f -exec touch -d "$AGE" {} + && make packages`
	ctx, cancel := context.WithTimeout(context.Background(), clonePatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--uts", "sh", "-c", script)
	project, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "PROJECT=" + project, "CHECKOUT=" + checkout, "HOME=" + filepath.Join(dir, b.home),
		"HOST=" + b.host, "MASK=" + b.umask, "TZ=" + b.zone, "LANG=" + b.language, "LC_ALL=" + b.language, "AGE=" + b.age, "LOGNAME=" + b.host,
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}
	// What was downloaded and compiled once need not be again.
	for _, v := range []string{"GOMODCACHE", "GOCACHE", "GOPROXY", "GOSUMDB", "GOFLAGS"} {
		cmd.Env = append(cmd.Env, v+"="+strings.TrimSpace(string(output(t, "go", "env", v))))
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make packages in a clone: %v\n%s", err, out)
	}
	return dist
}

func TestBuiltTwiceThePackagesAreTheSame(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one := builder{"one", "home-of-one", "022", "UTC", "C", "one", "2020-01-01"}.build(t, dir)
	two := builder{"another/and/deeper", "another-home", "077", "Asia/Tokyo", "C.UTF-8", "two", "2025-06-07 08:09:10"}.build(t, dir)
	each(t, one, func(t *testing.T, a archive) {
		b := find(t, two, a.name, a.format)
		if filepath.Base(a.file) != filepath.Base(b.file) {
			t.Fatalf("they are called %s and %s", a.file, b.file)
		}
		if bytes.Equal(read(t, a.file), read(t, b.file)) {
			return
		}
		t.Errorf("%s is not the same twice", filepath.Base(a.file))
		ours, theirs := a.files(t), b.files(t)
		for path, e := range ours {
			if o := theirs[path]; !bytes.Equal(e.text, o.text) || e.mode != o.mode || e.owner != o.owner || e.link != o.link || !e.at.Equal(o.at) {
				t.Errorf("%s differs: %v %s %v, and %v %s %v", path, e.mode, e.owner, e.at, o.mode, o.owner, o.at)
			}
		}
	})
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
