package dom0

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// journalName is the file below state_dir.
	journalName = "dom0-network.journal"
	// maxJournal bounds what is read of it, in bytes: some 32,000 domains have a line of 150 bytes each, at most.
	maxJournal = 8 << 20
)

// JournalPath is the file that says what `up` did, below state_dir. It is there while dom0 is on the network, and after a
// crash until `down` has run.
func JournalPath(stateDir string) string { return filepath.Join(stateDir, journalName) }

// line is a line of the journal: exactly one of them is set.
type line struct {
	Begin     *begin     `json:"begin,omitempty"`
	Pause     *pause     `json:"pause,omitempty"`
	Attach    *attach    `json:"attach,omitempty"`
	Configure *configure `json:"configure,omitempty"`
	Resolve   *resolve   `json:"resolve,omitempty"`
	Undone    *int       `json:"undone,omitempty"` // a step's number, from 0, that was taken back
}

// begin is the first line.
type begin struct {
	Boot    string `json:"boot"` // /proc/sys/kernel/random/boot_id
	Version string `json:"version"`
}

// step is the line's step, nil if it has none.
func (l line) step() step {
	switch {
	case l.Pause != nil:
		return *l.Pause
	case l.Attach != nil:
		return *l.Attach
	case l.Configure != nil:
		return *l.Configure
	case l.Resolve != nil:
		return *l.Resolve
	}
	return nil
}

// history is what a journal says.
type history struct {
	begin
	steps  []step
	undone map[int]bool // by number
}

// parseJournal reads a journal, and says how many bytes of it are whole lines: what a crash cut off while it was written is
// no part of it, as its step was not taken yet.
func parseJournal(text []byte) (h history, whole int, err error) {
	h.undone = map[int]bool{}
	for number := 1; ; number++ {
		length := bytes.IndexByte(text[whole:], '\n')
		if length < 0 {
			return h, whole, nil
		}
		if err := h.add(text[whole : whole+length]); err != nil {
			return history{}, 0, fmt.Errorf("line %d: %w", number, err)
		}
		whole += length + 1
	}
}

// add takes in one line.
func (h *history) add(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var l line
	if err := d.Decode(&l); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind its end")
	}
	s := l.step()
	switch {
	case l.count() != 1:
		return fmt.Errorf("one thing is wanted, and it has %d", l.count())
	case (l.Begin != nil) != (h.Boot == ""):
		return errors.New(`"begin" is wanted in the first line, and there alone`)
	case l.Begin != nil && !uuid.MatchString(l.Begin.Boot):
		return fmt.Errorf("boot %.64q is no id of a boot", l.Begin.Boot)
	case l.Begin != nil:
		h.begin = *l.Begin
	case l.Undone != nil && (*l.Undone < 0 || *l.Undone >= len(h.steps)):
		return fmt.Errorf("step %d was undone, and there are %d", *l.Undone, len(h.steps))
	case l.Undone != nil:
		h.undone[*l.Undone] = true
	default:
		h.steps = append(h.steps, s)
		return s.check()
	}
	return nil
}

func (l line) count() (n int) {
	for _, is := range []bool{l.Begin != nil, l.Pause != nil, l.Attach != nil, l.Configure != nil, l.Resolve != nil, l.Undone != nil} {
		if is {
			n++
		}
	}
	return n
}

// journal is the file, open to be written.
type journal struct {
	path string
	file *os.File
	size int64 // of its whole lines, in bytes
	history
}

// openJournal opens a journal that is there; fs.ErrNotExist if none is.
func openJournal(path string) (*journal, error) {
	// O_NONBLOCK: opening a FIFO that somebody put there must not wait.
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	j := &journal{path: path, file: file}
	if err := j.read(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return j, nil
}

func (j *journal) read() error {
	info, err := j.file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", j.path)
	}
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(j.file, maxJournal+1))
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", j.path, err)
	case len(text) > maxJournal:
		return fmt.Errorf("%s is longer than %d bytes: %s", j.path, maxJournal, mendJournal)
	}
	history, whole, err := parseJournal(text)
	if err != nil {
		return fmt.Errorf("%s: %w: %s", j.path, err, mendJournal)
	}
	j.history, j.size = history, int64(whole)
	return nil
}

const mendJournal = "somebody else changed it. Take back by hand what its other lines tell (`xl unpause`, `xl network-detach`, " +
	"resolv.conf), and delete it"

// newJournal makes the file, which must not exist, with its first line.
func newJournal(path string, b begin) (*journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the journal: %w", err)
	}
	j := &journal{path: path, file: file, history: history{begin: b, undone: map[int]bool{}}}
	if err := errors.Join(j.write(line{Begin: &b}), syncDir(filepath.Dir(path))); err != nil {
		return nil, errors.Join(err, j.close(), os.Remove(path))
	}
	return j, nil
}

// write returns when the line is on the disk. Half a line at the end, a crash's or a full disk's, is written over.
func (j *journal) write(l line) error {
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("write the journal %s: %w", j.path, err)
	}
	text = append(text, '\n')
	err = j.file.Truncate(j.size)
	if err == nil {
		_, err = j.file.WriteAt(text, j.size)
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	j.size += int64(len(text))
	return nil
}

// take writes down a step that is taken next.
func (j *journal) take(s step) error {
	if err := j.write(s.line()); err != nil {
		return err
	}
	j.steps = append(j.steps, s)
	return nil
}

// undo writes down that a step was taken back, so that nobody does it again.
func (j *journal) undo(number int) error {
	j.undone[number] = true
	return j.write(line{Undone: &number})
}

func (j *journal) close() error { return j.file.Close() }

// remove deletes the file: nothing is left to be taken back.
func (j *journal) remove() error {
	if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete the journal: %w", err)
	}
	return syncDir(filepath.Dir(j.path))
}

// syncDir makes what happened to the names in a folder last (fsync(2)).
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := dir.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync %s: %w", path, err), dir.Close())
	}
	return dir.Close()
}
