//go:build packages

package packages

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

// The releases that the tests install, one after the other.
const older, newer = "0.9.1", "0.9.2"

// workshop is where this run of the tests builds; TestMain makes and removes it.
var workshop string

func TestMain(m *testing.M) {
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

// makeOnce runs a target of our Makefile for a version, if that has not been done yet, and returns its folder.
func makeOnce(t *testing.T, variable, target, version string) string {
	t.Helper()
	dir := filepath.Join(workshop, target+"-"+version)
	run, _ := made.LoadOrStore(dir, sync.OnceValue(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), buildPatience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "make", "-C", "../..", target, variable+"="+dir, "BIN="+filepath.Join(workshop, "bin-"+version), "VERSION="+version)
		cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
			return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS=")
		}), "LC_ALL=C")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("make %s: %w\n%s", target, err, out)
		}
		return nil
	}))
	if err := run.(func() error)(); err != nil {
		t.Fatal(err)
	}
	return dir
}

var made sync.Map // func() error by folder

// built is the folder with the packages of a version.
func built(t *testing.T, version string) string {
	t.Helper()
	return makeOnce(t, "DIST", "packages", version)
}

// installed is the tree that make install makes of the newer version.
func installed(t *testing.T) string {
	t.Helper()
	return makeOnce(t, "DESTDIR", "install", newer)
}
