package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// xtablesLock is the file that every iptables-legacy process opens before it reads and writes a table (iptables,
// xshared.c). The environment may name another one, for us as for iptables.
const (
	xtablesLock    = "/run/xtables.lock"
	xtablesLockEnv = "XTABLES_LOCKFILE"
)

// Watch implements Backend. Over nf_tables the kernel tells of every change and of who made it. Of legacy iptables it
// tells nothing, but each process opens the lock, except iptables-save: so looking causes no hint.
func (b *iptBackend) Watch(ctx context.Context, hint func(who string)) error {
	var err error
	if b.legacy {
		path := xtablesLock
		if p := os.Getenv(xtablesLockEnv); p != "" {
			path = p
		}
		err = watchFile(ctx, path, func() { hint("") })
	} else {
		ours := map[nftTableName]bool{}
		for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
			for _, h := range hooks(false) {
				ours[nftTableName{family, h.table}] = true
			}
		}
		err = watchNFTables(ctx, ours, hint)
	}
	if err != nil {
		return fmt.Errorf("iptables: watch for changes: %w", err)
	}
	return nil
}

// A lock is closed when its process is done with its change. The others tell that another file may have its name now.
const (
	lockReleased = unix.IN_CLOSE_WRITE | unix.IN_CLOSE_NOWRITE
	lockReplaced = unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_IGNORED
)

// watchFile calls hint at the start and whenever somebody closed the file.
func watchFile(ctx context.Context, path string, hint func()) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	queue := os.NewFile(uintptr(fd), "inotify")
	// A deadline in the past ends the Read that waits. Setting it fails only on a closed file, which ends it too.
	stop := context.AfterFunc(ctx, func() { _ = queue.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	watch, err := armFile(fd, path)
	if err != nil {
		return errors.Join(err, queue.Close())
	}
	hint()
	buffer := make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		n, err := queue.Read(buffer)
		if ctx.Err() != nil {
			return queue.Close()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("inotify on %s: %w", path, err), queue.Close())
		}
		seen := inotifyMask(buffer[:n], watch)
		if seen&lockReplaced != 0 {
			if watch, err = armFile(fd, path); err != nil {
				return errors.Join(err, queue.Close())
			}
		}
		if seen != 0 {
			hint()
		}
	}
}

// armFile watches the file that has this name now. A missing one is created, as the first iptables process would.
func armFile(fd int, path string) (watch int, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return 0, fmt.Errorf("open the lock of iptables: %w", err)
	}
	if err := f.Close(); err != nil {
		return 0, fmt.Errorf("close the lock of iptables: %w", err)
	}
	watch, err = unix.InotifyAddWatch(fd, path, lockReleased|lockReplaced&^unix.IN_IGNORED)
	if err != nil {
		return 0, fmt.Errorf("inotify on %s: %w", path, err)
	}
	return watch, nil
}

// inotifyMask gathers what happened to one watch; a lost event counts as any.
func inotifyMask(events []byte, watch int) uint32 {
	var seen uint32
	for len(events) >= unix.SizeofInotifyEvent {
		// struct inotify_event: s32 wd, u32 mask, u32 cookie, u32 len, then len bytes of name.
		wd := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		length := uint64(binary.NativeEndian.Uint32(events[12:])) + unix.SizeofInotifyEvent
		if mask&unix.IN_Q_OVERFLOW != 0 || int(wd) == watch {
			seen |= mask
		}
		if length > uint64(len(events)) {
			return seen
		}
		events = events[length:]
	}
	return seen
}
