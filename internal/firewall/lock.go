package firewall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"netvmd/internal/flock"
)

// lockTimeout bounds the wait for the lock file. Loading a whole ruleset with iptables takes some 140 processes, about
// half a second; a hotplug script has 40 s (libxl's LIBXL_HOTPLUG_TIMEOUT) in all.
const lockTimeout = 15 * time.Second

// lockFile locks a file for this process alone (flock) and waits for whoever holds it, until ctx ends or lockTimeout
// has passed. The file and its folder are made if they are missing; "" locks nothing. The kernel gives the lock back
// when its holder and the programs that it has started have ended.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the lock: %w", err)
	}
	file, err := flock.Lock(ctx, path, lockTimeout)
	if err != nil {
		return nil, err
	}
	// Nothing was written, so that the error of closing tells nothing.
	unlock = func() { _ = errors.Join(unix.Flock(int(file.Fd()), unix.LOCK_UN), file.Close()) }
	// Programs that are started meanwhile hold the lock too: one of them may still be at work when this one is killed.
	if _, err := unix.FcntlInt(file.Fd(), unix.F_SETFD, 0); err != nil {
		unlock()
		return nil, fmt.Errorf("share the lock %s with children: %w", path, err)
	}
	return unlock, nil
}

// lockExisting is lockFile for who only reads, and so makes nothing: where there is no lock, nobody ever wrote.
func lockExisting(ctx context.Context, path string) (unlock func(), err error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	return lockFile(ctx, path)
}
