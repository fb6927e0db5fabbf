package tray

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Folder is where the one tray of a display keeps its files: nobody else can prepare or read it. Whoever holds it is that
// one; the kernel takes it from a program that dies.
type Folder struct {
	Path string
	dir  *os.File // locked
}

// HeldError says that a tray runs on the display already.
type HeldError struct {
	Display string
	PID     string // of that tray; "" while it starts
}

func (e HeldError) Error() string {
	return fmt.Sprintf("another netvm-tray runs on display %s already (pid %s)", e.Display, e.PID)
}

// mostClaims is how often a folder is claimed that its holder takes away at that moment.
const mostClaims = 10

// pidFile names the holder, for people.
const pidFile = "pid"

// Claim takes the folder of a display and empties it. A HeldError is wrapped when another tray has it.
func Claim(display string) (*Folder, error) {
	base, err := baseFolder()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(base, "netvm-tray-"+fileName(display))
	f := &Folder{Path: path}
	for n := 1; ; n++ {
		f.dir, err = lock(path)
		if err == nil {
			break
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			pid, _ := os.ReadFile(filepath.Join(path, pidFile)) // without it, the error says less
			return nil, HeldError{Display: display, PID: string(pid)}
		}
		if !errors.Is(err, fs.ErrNotExist) || n == mostClaims {
			return nil, fmt.Errorf("take the folder of this display's tray: %w", err)
		}
	}
	if err := f.prepare(); err != nil {
		f.Leave()
		return nil, fmt.Errorf("empty the folder of this display's tray: %w", err)
	}
	return f, nil
}

// baseFolder is where the user's own folders stand.
func baseFolder() (string, error) {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && private(dir, 0o022) == nil {
		return dir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("a place for the tray's files: XDG_RUNTIME_DIR names no folder of this user's, and %w", err)
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", fmt.Errorf("a place for the tray's files: %w", err)
	}
	return cache, private(cache, 0o022)
}

// private makes sure that a folder is this user's and that others have none of the rights.
func private(path string, others fs.FileMode) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	owner, is := info.Sys().(*syscall.Stat_t)
	if !is || !info.IsDir() || int(owner.Uid) != os.Geteuid() || info.Mode().Perm()&others != 0 {
		return fmt.Errorf("%s is not a folder of this user's alone", path)
	}
	return nil
}

// lock makes and locks a folder. The error wraps fs.ErrNotExist when it was taken away meanwhile.
func lock(path string) (*os.File, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := private(path, 0o077); err != nil {
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil && !isStill(dir, path) {
		err = fmt.Errorf("%s was replaced: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// isStill tells whether a path leads to the opened file.
func isStill(file *os.File, path string) bool {
	opened, err := file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(opened, named)
}

// prepare takes away what a tray that died has left, and says who holds the folder now.
func (f *Folder) prepare() error {
	entries, err := f.dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range entries {
		if err := os.RemoveAll(filepath.Join(f.Path, name)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(f.Path, pidFile), []byte(strconv.Itoa(os.Getpid())), 0o600)
}

// Leave takes the folder away. What cannot be removed is emptied by the next tray.
func (f *Folder) Leave() {
	_ = os.RemoveAll(f.Path)
	_ = f.dir.Close()
}

// fileName makes a display's name that of a file. The screens of a display have one tray.
func fileName(display string) string {
	colon := strings.LastIndex(display, ":")
	if dot := strings.LastIndex(display, "."); colon >= 0 && dot > colon {
		display = display[:dot]
	}
	return strings.Map(func(r rune) rune {
		if r == '/' || r < ' ' || r > '~' {
			return '_'
		}
		return r
	}, display)
}
