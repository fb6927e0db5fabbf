package override

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

const (
	// maxFile bounds what is read, in bytes: 32 overrides of 8 servers have some 20 KiB.
	maxFile = 64 << 10
	// maxName is the length of the longest name on a bus, in bytes (D-Bus specification, "Bus names"), and enough for
	// what a caller is called.
	maxName = 255
	// maxNumber is the highest integer that every reader of JSON takes as it is (RFC 8259 §6).
	maxNumber = 1<<53 - 1
)

// file is the form of both files.
type file struct {
	Overrides []record `json:"overrides"`
}

type record struct {
	Servers []netip.Addr `json:"servers"`
	Holder  string       `json:"holder,omitempty"`
	By      string       `json:"by"`
	Since   time.Time    `json:"since"`
	Number  uint64       `json:"number"` // the higher, the newer, over both files
}

// decode reads a file. One bad override makes the whole file bad: nothing half-applied.
func decode(text []byte, persistent bool) ([]entry, error) {
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	most := MaxHolders
	if persistent {
		most = 1
	}
	if len(f.Overrides) > most {
		return nil, fmt.Errorf("%d overrides where %d can be", len(f.Overrides), most)
	}
	entries := make([]entry, 0, len(f.Overrides))
	holders := map[string]bool{}
	for i, r := range f.Overrides {
		o, err := tidy(netvm.Override{Servers: r.Servers, Persistent: persistent, Holder: r.Holder, By: r.By, Since: r.Since})
		switch {
		case err != nil:
			return nil, fmt.Errorf("overrides[%d]: %w", i, err)
		case r.Number > maxNumber:
			return nil, fmt.Errorf("overrides[%d]: number %d is too high", i, r.Number)
		case holders[o.Holder]:
			return nil, fmt.Errorf("overrides[%d]: holder %q has two", i, o.Holder)
		}
		holders[o.Holder] = true
		entries = append(entries, entry{o, r.Number})
	}
	return entries, nil
}

func encode(entries []entry) ([]byte, error) {
	f := file{Overrides: make([]record, len(entries))}
	for i, e := range entries {
		f.Overrides[i] = record{Servers: e.Servers, Holder: e.Holder, By: e.By, Since: e.Since, Number: e.number}
	}
	text, err := json.MarshalIndent(f, "", "\t")
	return append(text, '\n'), err
}

// read reads a file in whole. One that is not there has no overrides.
func read(path string, persistent bool) ([]entry, error) {
	// O_NONBLOCK: opening a FIFO that somebody put there must not wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file", path))
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	entries, err := decode(text, persistent)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return entries, nil
}

// write replaces the file in one step, and returns when it is on the disk; without entries there is no file.
func write(path string, entries []entry) error {
	dir := filepath.Dir(path)
	if len(entries) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("end the override: %w", err)
		}
		return syncDir(dir)
	}
	text, err := encode(entries)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("keep the override: %w", err)
	}
	fresh := path + ".new" // the lock of the stack makes the name ours
	if err := writeSynced(fresh, text); err != nil {
		return errors.Join(fmt.Errorf("keep the override: %w", err), discard(fresh))
	}
	if err := os.Rename(fresh, path); err != nil {
		return errors.Join(fmt.Errorf("keep the override: %w", err), discard(fresh))
	}
	return syncDir(dir)
}

// writeSynced returns when the text is on the disk: a rename may get there before what it renames.
func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// discard removes what could not be written whole.
func discard(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EROFS) {
		return err
	}
	return nil
}

// syncDir makes a rename or a removal last (fsync(2)).
func syncDir(path string) error {
	dir, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing in it was removed
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // a file system without it
		return err
	}
	return nil
}

// printable makes a text from outside fit for one line.
func printable(s string) string {
	if len(s) > maxName {
		s = s[:maxName]
	}
	s = strings.ToValidUTF8(s, "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
