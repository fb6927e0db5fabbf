//go:build packages

package formats

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// buildPatience is for make packages: compiling everything on a slow machine.
const buildPatience = 10 * time.Minute

// version is that of the packages that are looked at.
const version = "0.9.2"

// workshop is where this run of the tests builds: TestMain makes and removes it, unless make test-packages, which has built
// the packages already, says where they are: in a folder for each version.
var workshop = os.Getenv("NETVMD_TEST_PACKAGES")

func TestMain(m *testing.M) {
	if workshop != "" {
		os.Exit(m.Run())
	}
	var err error
	if workshop, err = os.MkdirTemp("", "packages"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(workshop); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// makeInto runs a target of our Makefile.
func makeInto(variable, dir, target string) error {
	ctx, cancel := context.WithTimeout(context.Background(), buildPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "make", "-C", "../..", target, variable+"="+dir, "BIN="+filepath.Join(workshop, "bin"), "VERSION="+version)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS=")
	}), "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make %s: %w\n%s", target, err, out)
	}
	return nil
}

// packages and tree are made when the first test needs them.
var (
	packages = sync.OnceValues(func() (string, error) {
		dir := filepath.Join(workshop, version)
		if _, err := os.Stat(dir); err == nil {
			return dir, nil
		}
		return dir, makeInto("DIST", dir, "packages")
	})
	tree = sync.OnceValues(func() (string, error) {
		dir := filepath.Join(workshop, "tree")
		return dir, makeInto("DESTDIR", dir, "install")
	})
)

// built is the folder with the packages.
func built(t *testing.T) string { return done(t, packages) }

// installed is what make install makes.
func installed(t *testing.T) string { return done(t, tree) }

func done(t *testing.T, once func() (string, error)) string {
	t.Helper()
	dir, err := once()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
