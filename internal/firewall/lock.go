package firewall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lockPatience is how long another process may hold the lock: loading takes some 50 ms, in iptables a second.
	lockPatience = 15 * time.Second
	// lockPause is the time between two attempts; flock(2) knows no deadline.
	lockPause = 5 * time.Millisecond
)

// lockFile takes the lock of that file, which is made if it is missing, and waits while another process has it. The
// kernel gives it back when a process ends. An empty path is no lock.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock %s: another process holds it: %w", path, ctx.Err()), file.Close())
		case <-time.After(lockPause):
		}
	}
}
