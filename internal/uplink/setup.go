package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockPatience is how long another program may be at work on the same interface: it may wait for NetworkManager.
const lockPatience = 60 * time.Second

// Setup sets up interfaces, each under a lock of its own.
type Setup struct {
	Dir        string // for the records
	ResolvConf string // the file that is written
	Protected  string // the folder with lists of files that are left alone; "" = none
	Hooks      []string
	Log        *slog.Logger
}

// New returns a Setup that keeps its records below a runtime folder; a nil log logs to slog.Default.
func New(runtimeDir, resolvConf string, log *slog.Logger) *Setup {
	if log == nil {
		log = slog.Default()
	}
	return &Setup{Dir: filepath.Join(runtimeDir, "uplinks"), ResolvConf: resolvConf, Protected: protectedFiles, Log: log}
}

// hold runs do under the interface's lock, with what is recorded of it.
func (s *Setup) hold(ctx context.Context, name string, do func(*record) error) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	unlock, err := lock(ctx, filepath.Join(s.Dir, name+".lock"))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer unlock()
	if err := remove(s.recordPath(name) + freshSuffix); err != nil { // of one that was killed
		return fmt.Errorf("%s: %w", name, err)
	}
	r, err := s.readRecord(name)
	if err != nil {
		return err
	}
	if err := do(&r); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// lock takes the lock of a file. The kernel gives it back when its holder ends.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	// Nothing was written that could be lost.
	unlock = func() { _ = file.Close() }
	switch err = flock(file, unix.LOCK_NB); {
	case err == nil:
		return unlock, nil
	case !errors.Is(err, unix.EWOULDBLOCK):
		unlock()
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	locked, waited := make(chan struct{}), error(nil)
	go func() { // nothing ends a lock that waits
		waited = flock(file, 0)
		close(locked)
	}()
	select {
	case <-locked:
		if waited != nil {
			unlock()
		}
		return unlock, waited
	case <-ctx.Done():
		go func() {
			<-locked
			unlock()
		}()
		return nil, fmt.Errorf("lock %s: another program is at work on it: %w", path, ctx.Err())
	}
}

func flock(file *os.File, how int) error {
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|how)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock %s: %w", file.Name(), err)
		}
	}
}
