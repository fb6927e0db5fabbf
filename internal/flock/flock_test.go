package flock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestALockIsHeldByOneAtATime(t *testing.T) {
	path, ctx := filepath.Join(t.TempDir(), "lock"), context.Background()
	held, err := Try(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Try(path); !errors.Is(err, ErrHeld) {
		t.Errorf("Try of a lock that is held: %v", err)
	}
	if _, err := Lock(ctx, path, time.Millisecond); !errors.Is(err, ErrHeld) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Lock whose patience ends: %v", err)
	}
	next := make(chan error, 1)
	go func() {
		file, err := Lock(ctx, path, time.Minute)
		if err == nil {
			err = file.Close()
		}
		next <- err
	}()
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-next; err != nil {
		t.Errorf("the next one: %v", err)
	}
	// The one whose patience ended got the lock in the end, and must have given it back.
	file, err := Lock(ctx, path, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
}

func TestALinkIsNoLock(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "file"), link); err != nil {
		t.Fatal(err)
	}
	if _, err := Try(link); err == nil || errors.Is(err, ErrHeld) {
		t.Errorf("a symbolic link: %v", err)
	}
}
