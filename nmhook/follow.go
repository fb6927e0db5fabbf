package nmhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"netvmd/internal/filewatch"
	"netvmd/internal/netvm"
)

// maxResolvConf bounds what is read, in bytes: a hundred times what a real file has.
const maxResolvConf = 64 << 10

// fileFollower follows resolv.conf.
type fileFollower struct {
	path  string
	board *board
	log   *slog.Logger
	watch *filewatch.Watch
	known known
}

func newFileFollower(path string, b *board, log *slog.Logger) (*fileFollower, error) {
	w, err := filewatch.New(path)
	if err != nil {
		return nil, err
	}
	return &fileFollower{path: path, board: b, log: log, watch: w}, nil
}

// run reads the file, and again whenever something happened to it, until ctx ends.
func (f *fileFollower) run(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() {
		for {
			if err := f.watch.Wait(); err != nil {
				failed <- err
				return
			}
			f.board.mark(sourceResolvConf, pending{arrived: time.Now(), signals: 1})
		}
	}()
	defer func() {
		if err := f.watch.Close(); err != nil { // ends the goroutine's read
			f.log.Debug("stop watching", "error", err)
		}
	}()
	f.board.mark(sourceResolvConf, pending{})
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-f.board.kick[sourceResolvConf]:
			if err := f.read(); err != nil {
				return err
			}
		}
	}
}

// read watches the chain as it is now, then reads: what changes later makes the file dirty again.
func (f *fileFollower) read() error {
	asked, _ := f.board.collect(sourceResolvConf)
	if err := f.watch.Arm(); err != nil {
		return err
	}
	rc, bad := readResolvConf(f.path)
	change := func(v *netvm.View) { v.ResolvConf = rc }
	if f.known.keep(bad != nil) {
		change = nil
	}
	f.board.publish(sourceResolvConf, asked, lines(bad), change)
	return nil
}

// readResolvConf reads the file in whole. A file that is not there is no error.
func readResolvConf(path string) (netvm.ResolvConf, error) {
	absent := netvm.ResolvConf{Path: path, Owner: netvm.ResolvConfAbsent}
	// O_NONBLOCK: opening a FIFO that somebody put there must not wait for a writer.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return absent, nil
	}
	if err != nil {
		return absent, fmt.Errorf("read resolv.conf: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return absent, fmt.Errorf("read resolv.conf: %w", err)
	}
	if !info.Mode().IsRegular() {
		return absent, fmt.Errorf("%s is not a regular file but %s", path, info.Mode())
	}
	content, err := io.ReadAll(io.LimitReader(file, maxResolvConf+1))
	if err != nil {
		return absent, fmt.Errorf("read %s: %w", path, err)
	}
	if len(content) > maxResolvConf {
		return absent, fmt.Errorf("%s is larger than %d bytes", path, maxResolvConf)
	}
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) { // deleted while it was read
		return absent, nil
	}
	if err != nil {
		return absent, fmt.Errorf("follow the symlinks of resolv.conf: %w", err)
	}
	return parseResolvConf(path, target, string(content))
}
