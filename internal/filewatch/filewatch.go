// Package filewatch tells when something happened to a file, by inotify: resolv.conf and the bus's socket come, go and are
// replaced, and symlinks on the way to them are switched.
package filewatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// maxSymlinks is the kernel's own bound, path_resolution(7).
	maxSymlinks = 40
	// maxArms bounds how often the chain is walked again because it changed under our feet; the next event
	// walks it anew.
	maxArms = 8

	// folderMask is everything that can put another file under a name. IN_CLOSE_WRITE and not IN_MODIFY: a
	// writer truncates first, and a file read at that moment would say "no nameservers".
	folderMask = unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	// fileMask is for the file itself: one that is bind-mounted is written under another folder.
	fileMask = unix.IN_CLOSE_WRITE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_DONT_FOLLOW

	// inotifyBuffer holds at least one event with the longest name, inotify(7).
	inotifyBuffer = 16 * (unix.SizeofInotifyEvent + unix.NAME_MAX + 1)
)

// Watch follows a path: its folder and, where it is a symlink, every folder along the chain, so that a
// replacement, deletion or return anywhere on the way is noticed.
type Watch struct {
	path  string
	fd    int      // the inotify instance
	inbox *os.File // the same, for reading

	mu   sync.Mutex
	seen map[int]watched
}

// watched is what one watch is for.
type watched struct {
	folder string
	names  map[string]bool // those in the folder that matter; nil = the watch is on the file itself
}

// link is one step on the way to the file: a name in a folder that is there.
type link struct{ folder, name string }

// New makes a Watch that follows nothing until it is armed. Close it.
func New(path string) (*Watch, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", path, err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch %s: inotify_init1: %w", path, err)
	}
	// Being non-blocking, the descriptor is handed to the runtime's poller, and Close ends a Read.
	return &Watch{path: path, fd: fd, inbox: os.NewFile(uintptr(fd), "inotify")}, nil
}

// Close ends the watch, and a Wait with an error.
func (w *Watch) Close() error {
	if err := w.inbox.Close(); err != nil {
		return fmt.Errorf("watch %s: close inotify: %w", w.path, err)
	}
	return nil
}

// Arm watches the chain as it is now. A name that appears between the walk and the watch would be missed: so
// the chain is walked again until it was the same twice.
func (w *Watch) Arm() error {
	var last []link
	for range maxArms {
		chain, target := walk(w.path)
		if slices.Equal(chain, last) {
			return nil
		}
		if err := w.watch(chain, target); err != nil {
			return err
		}
		last = chain
	}
	return nil
}

// walk follows symlinks from path. Where a folder does not exist, the step is the name of what is missing in
// the nearest folder that does.
func walk(path string) (chain []link, target string) {
	for range maxSymlinks {
		folder, name := filepath.Split(path)
		folder = filepath.Clean(folder)
		for !isFolder(folder) && folder != "/" {
			folder, name = filepath.Dir(folder), filepath.Base(folder)
		}
		chain = append(chain, link{folder, name})
		to, err := os.Readlink(path)
		if err != nil {
			return chain, path
		}
		if !filepath.IsAbs(to) {
			// The kernel counts ".." from where the folder really is.
			if real, err := filepath.EvalSymlinks(folder); err == nil {
				folder = real
			}
			to = filepath.Join(folder, to)
		}
		path = filepath.Clean(to)
	}
	return chain, path
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// watch puts the watches in place and lifts those that the chain no longer needs.
func (w *Watch) watch(chain []link, target string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[int]watched{}
	for _, l := range chain {
		wd, err := unix.InotifyAddWatch(w.fd, l.folder, folderMask)
		if isGone(err) {
			continue // since the walk, which is done again
		}
		if err != nil {
			return fmt.Errorf("watch %s: inotify_add_watch %s: %w", w.path, l.folder, err)
		}
		if _, shared := seen[wd]; !shared {
			seen[wd] = watched{l.folder, map[string]bool{}}
		}
		seen[wd].names[l.name] = true
	}
	wd, err := unix.InotifyAddWatch(w.fd, target, fileMask)
	if err != nil && !isGone(err) && !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("watch %s: inotify_add_watch %s: %w", w.path, target, err)
	}
	if _, isFolder := seen[wd]; err == nil && !isFolder {
		seen[wd] = watched{folder: target}
	}
	old := w.seen
	w.seen = seen
	return w.lift(old)
}

// lift takes away the watches that are not seen any more.
func (w *Watch) lift(old map[int]watched) error {
	for wd, was := range old {
		if _, needed := w.seen[wd]; needed {
			continue
		}
		// EINVAL: the kernel has lifted it already, because the inode is gone.
		if _, err := unix.InotifyRmWatch(w.fd, uint32(wd)); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("watch %s: inotify_rm_watch %s: %w", w.path, was.folder, err)
		}
	}
	return nil
}

func isGone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) }

// Wait blocks until something happened to the path since Arm, and forgets nothing: whatever is not understood counts.
func (w *Watch) Wait() error {
	buf := make([]byte, inotifyBuffer)
	for {
		n, err := w.inbox.Read(buf)
		if err != nil {
			return fmt.Errorf("watch %s: read inotify: %w", w.path, err)
		}
		if w.concerns(buf[:n]) {
			return nil
		}
	}
}

// concerns tells whether one of the events, a struct inotify_event each, may have changed what is read.
func (w *Watch) concerns(buf []byte) bool {
	for len(buf) >= unix.SizeofInotifyEvent {
		wd := int(int32(binary.NativeEndian.Uint32(buf)))
		mask := binary.NativeEndian.Uint32(buf[4:])
		size := int(binary.NativeEndian.Uint32(buf[12:]))
		if size > len(buf)-unix.SizeofInotifyEvent {
			return true
		}
		name := strings.TrimRight(string(buf[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size]), "\x00")
		buf = buf[unix.SizeofInotifyEvent+size:]

		if w.matters(wd, mask, name) {
			return true
		}
	}
	return false
}

func (w *Watch) matters(wd int, mask uint32, name string) bool {
	if mask&unix.IN_Q_OVERFLOW != 0 {
		return true
	}
	w.mu.Lock()
	at, ours := w.seen[wd]
	w.mu.Unlock()
	switch {
	case !ours:
		return false // of a watch that was lifted meanwhile
	case name == "" || at.names == nil:
		return true // the folder or the file itself
	case !at.names[name]:
		return false // a neighbour in the folder
	case mask&unix.IN_CREATE != 0:
		return !beingWritten(filepath.Join(at.folder, name))
	default:
		return true
	}
}

// beingWritten tells whether a name that has just appeared is a new file, whose writer holds it open: reading
// it now would give half of it, and IN_CLOSE_WRITE will follow. A symlink, a second hard link and a folder are
// complete when they appear.
func beingWritten(path string) bool {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1
}
