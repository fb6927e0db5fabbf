// Package flock keeps other programs out by the lock of a whole file, flock(2), with an end to the waiting.
package flock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld says that another program holds the lock.
var ErrHeld = errors.New("another program holds the lock")

// Try takes a file's lock, or gives ErrHeld at once. The file is made if it is missing, in a folder that is there. The kernel
// gives the lock back when the file that is returned is closed, and those of programs that have inherited it.
func Try(path string) (*os.File, error) {
	file, err := open(path)
	if err != nil {
		return nil, err
	}
	if err := take(file, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// Lock is Try that waits for whoever holds the lock, until ctx ends or the patience has passed. It waits in a goroutine of its
// own, as nothing ends a flock that waits: one that comes too late is given back at once.
func Lock(ctx context.Context, path string, patience time.Duration) (*os.File, error) {
	if file, err := Try(path); !errors.Is(err, ErrHeld) {
		return file, err
	}
	file, err := open(path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	taken := make(chan error, 1)
	go func() { taken <- take(file, unix.LOCK_EX) }()
	select {
	case err := <-taken:
		if err != nil {
			return nil, errors.Join(err, file.Close())
		}
		return file, nil
	case <-ctx.Done():
		go func() { _ = errors.Join(<-taken, file.Close()) }() // nothing was written to it
		return nil, fmt.Errorf("lock %s: %w: %w", path, ErrHeld, ctx.Err())
	}
}

func open(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	return file, nil
}

// take tries again when a signal interrupts it.
func take(file *os.File, how int) error {
	for {
		// Fd leaves a file in blocking mode, which a regular file is in anyway.
		err := unix.Flock(int(file.Fd()), how)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("lock %s: %w", file.Name(), ErrHeld)
		case !errors.Is(err, unix.EINTR):
			return fmt.Errorf("lock %s: %w", file.Name(), err)
		}
	}
}
