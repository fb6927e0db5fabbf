package vif

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// locks are byte ranges of one file, which stays: one byte for each vif, and one for the question whose an address is.
// The kernel gives a lock back when its holder ends.
type locks struct{ path string }

// addressesByte lies behind the bytes of all vifs.
const addressesByte = int64(maxDomID+1) * (maxDevID + 1)

// lockPatience is how long another program may hold a lock: an admin's hooks run under that of their vif.
const lockPatience = 20 * time.Second

// errLocked says that another program holds the lock.
var errLocked = errors.New("another program is at work on it")

func newLocks(runtimeDir string) locks { return locks{filepath.Join(runtimeDir, "vifs.lock")} }

// vif takes the lock of one vif.
func (l locks) vif(ctx context.Context, name string) (unlock func(), err error) {
	at, err := byteOf(name)
	if err != nil {
		return nil, err
	}
	return l.wait(ctx, name, at)
}

// tryVif takes the lock of one vif, or gives errLocked at once.
func (l locks) tryVif(name string) (unlock func(), err error) {
	at, err := byteOf(name)
	if err != nil {
		return nil, err
	}
	return l.try(name, at)
}

// addresses takes the lock under which it is decided whose an address is.
func (l locks) addresses(ctx context.Context) (unlock func(), err error) {
	return l.wait(ctx, "addresses", addressesByte)
}

func byteOf(name string) (int64, error) {
	domID, devID, err := ParseName(name)
	return int64(domID)*(maxDevID+1) + int64(devID), err
}

// wait waits in a goroutine of its own, as nothing ends a lock that waits: one that comes too late is given back at once.
func (l locks) wait(ctx context.Context, what string, at int64) (unlock func(), err error) {
	unlock, err = l.try(what, at)
	if !errors.Is(err, errLocked) {
		return unlock, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	type result struct {
		unlock func()
		err    error
	}
	locked := make(chan result, 1)
	go func() {
		unlock, err := l.lock(what, at, unix.F_OFD_SETLKW)
		locked <- result{unlock, err}
	}()
	select {
	case r := <-locked:
		return r.unlock, r.err
	case <-ctx.Done():
		go func() {
			if r := <-locked; r.err == nil {
				r.unlock()
			}
		}()
		return nil, fmt.Errorf("%w: %w", err, ctx.Err())
	}
}

func (l locks) try(what string, at int64) (unlock func(), err error) {
	return l.lock(what, at, unix.F_OFD_SETLK)
}

// lock opens the file anew each time: a lock belongs to an open file, so that two in one process exclude each other.
func (l locks) lock(what string, at int64, how int) (unlock func(), err error) {
	file, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.FcntlFlock(file.Fd(), how, &unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1})
	}
	if err != nil {
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			err = errLocked
		}
		return nil, errors.Join(fmt.Errorf("lock %s in %s: %w", what, l.path, err), file.Close())
	}
	// Closing is what unlocks; nothing was written that could be lost.
	return func() { _ = file.Close() }, nil
}
