package uplink

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"netvmd/internal/flock"
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
	lock, err := flock.Lock(ctx, filepath.Join(s.Dir, name+".lock"), lockPatience)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer func() { _ = lock.Close() }()                              // nothing was written to it
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
