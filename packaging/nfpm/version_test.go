package nfpm

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The commits of the test, in a zone that is not the packages'.
const committed = "2026-11-23T23:30:00+02:00"

// checkout is a folder with our Makefile in it.
type checkout struct {
	*testing.T
	dir string
}

func newCheckout(t *testing.T) checkout {
	t.Helper()
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	c := checkout{t, t.TempDir()}
	for name, text := range map[string]string{"Makefile": string(makefile), "go.mod": "module netvmd\n"} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// run runs a program there, as if nothing were set on this machine.
func (c checkout) run(name string, args ...string) string {
	c.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = c.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "GIT_CEILING_DIRECTORIES=" + filepath.Dir(c.dir),
		"GIT_AUTHOR_DATE=" + committed, "GIT_COMMITTER_DATE=" + committed, "TZ=America/New_York",
	}
	out, err := cmd.Output()
	if err != nil {
		c.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (c checkout) commit() {
	c.Helper()
	c.run("git", "-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "commit", "--quiet", "--allow-empty", "--message=change")
}

// says is what make takes a variable for.
func (c checkout) says(variable string, args ...string) string {
	c.Helper()
	return c.run("make", append(args, "--silent", "--eval", `says: ; @echo "$(`+variable+`)"`, "says")...)
}

func TestVersionComesFromTheCommit(t *testing.T) {
	c := newCheckout(t)
	wants := func(when, pattern string) {
		t.Helper()
		if got := c.says("VERSION"); !regexp.MustCompile(`^` + pattern + `$`).MatchString(got) {
			t.Errorf("%s the version is %s, want %s", when, got, pattern)
		}
	}
	wants("outside of git", `0\.9\.0`)
	c.run("git", "init", "--quiet")
	c.commit()
	wants("without a tag", `0\.9\.0-git20261123213000\.g[0-9a-f]{7,}`)
	c.run("git", "tag", "vacation")
	wants("with a tag that is no version", `0\.9\.0-git20261123213000\.g[0-9a-f]{7,}`)
	c.run("git", "tag", "v0.9.0-rc1")
	wants("at a release candidate", `0\.9\.0-rc1`)
	c.commit()
	c.run("git", "tag", "v0.9.0")
	wants("at a release", `0\.9\.0`)
	c.commit()
	c.commit()
	wants("two commits later", `0\.9\.0\+2\.g[0-9a-f]{7,}`)
	if got := c.says("VERSION", "VERSION=1.2.3"); got != "1.2.3" {
		t.Errorf("the version of the command line is %s", got)
	}
}

func TestTimeOfThePackagesIsTheCommits(t *testing.T) {
	c := newCheckout(t)
	c.run("touch", "--date", "2026-01-02T03:04:05Z", "go.mod")
	if got := c.says("SOURCE_DATE_EPOCH"); got != "1767323045" {
		t.Errorf("outside of git it is %s, want the sources'", got)
	}
	c.run("git", "init", "--quiet")
	c.commit()
	if got := c.says("SOURCE_DATE_EPOCH"); got != "1795469400" {
		t.Errorf("it is %s, want the commit's", got)
	}
	if got := c.says("SOURCE_DATE_EPOCH", "SOURCE_DATE_EPOCH=1"); got != "1" {
		t.Errorf("it is %s, though it was given", got)
	}
}
