package firewall

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestALockIsHeldByOneAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "firewall.lock")
	ctx := testContext(t)
	unlock, err := lockFile(ctx, path)
	must(t, err)

	impatient, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := lockFile(impatient, path); !errors.Is(err, context.Canceled) {
		t.Errorf("a lock that is held gave %v, want that the wait was cancelled", err)
	}

	second := make(chan error, 1)
	go func() {
		unlock, err := lockFile(ctx, path)
		if err == nil {
			unlock()
		}
		second <- err
	}()
	unlock()
	must(t, <-second)

	// The wait that was cancelled got the lock in the end, and must have given it back.
	unlock, err = lockFile(ctx, path)
	must(t, err)
	unlock()
}

func TestWhoOnlyReadsWaitsForALockAndMakesNone(t *testing.T) {
	dir, ctx := filepath.Join(t.TempDir(), "run"), testContext(t)
	path := filepath.Join(dir, "firewall.lock")
	unlock, err := lockExisting(ctx, path)
	must(t, err)
	unlock()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a reader made the folder of the lock: %v", err)
	}
	unlock, err = lockFile(ctx, path)
	must(t, err)
	impatient, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := lockExisting(impatient, path); !errors.Is(err, context.Canceled) {
		t.Errorf("a lock that is held gave %v, want that the wait was cancelled", err)
	}
	unlock()
}

func TestALockThatCannotBeIsAnError(t *testing.T) {
	ctx := testContext(t)
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, os.Symlink(file, link))
	for name, path := range map[string]string{
		"a folder":          dir,
		"below a file":      filepath.Join(file, "lock"),
		"a symbolic link":   link,
		"a name with a \\0": dir + "/\x00",
	} {
		if _, err := lockFile(ctx, path); err == nil {
			t.Errorf("%s: locked", name)
		}
	}
	unlock, err := lockFile(ctx, "")
	must(t, err)
	unlock()
}

func TestWhatWasStartedUnderALockDoesNotKeepItFromTheNext(t *testing.T) {
	path, ctx := filepath.Join(t.TempDir(), "lock"), testContext(t)
	unlock, err := lockFile(ctx, path)
	must(t, err)
	child := exec.Command("cat")
	input, err := child.StdinPipe()
	must(t, err)
	must(t, child.Start())
	unlock()
	unlock, err = lockFile(ctx, path)
	must(t, err)
	unlock()
	must(t, input.Close())
	must(t, child.Wait())
}
