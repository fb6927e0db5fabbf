package override

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const good = `{"overrides": [{"servers": ["192.0.2.1"], "by": "x", "since": "2026-01-02T03:04:05Z", "number": 3}]}`

func TestBrokenFileIsOneProblemAndIgnored(t *testing.T) {
	many := `{"overrides": [` + strings.Repeat(`{"servers": ["192.0.2.1"]},`, 40)
	for _, tc := range []struct{ name, file, text, says string }{
		{"empty", persistentFile, "", "unexpected end"},
		{"cut off", persistentFile, good[:40], "unexpected end"},
		{"something behind it", persistentFile, good + "x", "invalid character"},
		{"binary", livingFile, "\x00\xff", "invalid character"},
		{"another type", livingFile, `{"overrides": "none"}`, "overrides"},
		{"no address", persistentFile, strings.Replace(good, "192.0.2.1", "192.0.2.300", 1), "192.0.2.300"},
		{"no server", persistentFile, strings.Replace(good, `"192.0.2.1"`, "", 1), "no server"},
		{"an empty address", persistentFile, strings.Replace(good, "192.0.2.1", "", 1), "no plain IP address"},
		{"a living one without a holder", livingFile, good, "holder"},
		{"two persistent ones", persistentFile, `{"overrides": [` + good[15:len(good)-2] + "," + good[15:len(good)-2] + "]}", "2 overrides"},
		{"a holder with two", livingFile, strings.ReplaceAll(`{"overrides": [X, X]}`, "X", `{"servers": ["192.0.2.1"], "holder": ":1"}`), "has two"},
		{"too many", livingFile, many[:len(many)-1] + "]}", "40 overrides"},
		{"a number out of range", persistentFile, strings.Replace(good, ": 3", ": 9007199254740992", 1), "too high"},
		{"too large", livingFile, strings.Repeat(" ", maxFile) + good, "larger than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDirs(t)
			d.put(tc.file, tc.text)
			s := d.open()
			expect(t, s, "")
			problems := s.Problems()
			if len(problems) != 1 || !strings.Contains(problems[0], tc.says) || !strings.Contains(problems[0], tc.file) {
				t.Fatalf("problems %q, want one with %q and %s", problems, tc.says, tc.file)
			}
			// It stands in nobody's way.
			must(t, s.Set(of(":1 192.0.2.1")))
			must(t, s.Set(of("! 192.0.2.2")))
			expect(t, d.open(), "! 192.0.2.2; :1 192.0.2.1")
			if p := append(s.Problems(), d.open().Problems()...); len(p) != 0 {
				t.Errorf("still %q", p)
			}
		})
	}
}

func TestNothingIsWrittenThatCouldNotBeReadAgain(t *testing.T) {
	d := newDirs(t)
	d.put(persistentFile, strings.Replace(good, ": 3", ": 9007199254740991", 1))
	s := d.open()
	if err := s.Set(of(":1 192.0.2.2")); err == nil || !strings.Contains(err.Error(), persistentFile) {
		t.Errorf("%v", err)
	}
	expect(t, s, "! 192.0.2.1")
	expect(t, d.open(), "! 192.0.2.1")
}

func TestClearRemovesABrokenFile(t *testing.T) {
	d := newDirs(t)
	d.put(persistentFile, "nonsense")
	s := d.open()
	if changed, err := s.Clear(":1"); !changed || err != nil {
		t.Errorf("%t, %v", changed, err)
	}
	if names, p := d.names(), s.Problems(); names != "" || len(p) != 0 {
		t.Errorf("files %s, problems %q", names, p)
	}
}

func TestFolderAndFIFOInTheFilesPlaceDoNotBlock(t *testing.T) {
	for name, put := range map[string]func(string) error{
		"folder": func(path string) error { return os.Mkdir(path, 0o755) },
		"FIFO":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDirs(t)
			must(t, put(filepath.Join(d.runtime, livingFile)))
			if p := d.open().Problems(); len(p) != 1 || !strings.Contains(p[0], "not a regular file") {
				t.Errorf("problems %q", p)
			}
		})
	}
}

// What a netvmd leaves that is killed between writing and renaming.
func TestHalfWrittenFileCountsForNothing(t *testing.T) {
	d := newDirs(t)
	must(t, d.open().Set(of("! 192.0.2.1")))
	must(t, d.open().Set(of(":1 192.0.2.2")))
	d.put(livingFile+".new", `{"overrides": [{"servers": ["192.0.2.9"`)
	must(t, os.WriteFile(filepath.Join(d.state, persistentFile+".new"), []byte(good+good), 0o644))
	s := d.open()
	expect(t, s, ":1 192.0.2.2; ! 192.0.2.1")
	if p := s.Problems(); len(p) != 0 {
		t.Errorf("problems %q", p)
	}
	must(t, s.Set(of("! 192.0.2.3")))
	must(t, s.Set(of(":1 192.0.2.4")))
	expect(t, d.open(), ":1 192.0.2.4; ! 192.0.2.3")
	if names := d.names(); names != persistentFile+" "+livingFile {
		t.Errorf("files %s", names)
	}
}

func TestNoFileWithoutAnOverride(t *testing.T) {
	d := newDirs(t)
	s := d.open()
	must(t, s.Set(of("! 192.0.2.1")))
	must(t, s.Set(of(":1 192.0.2.1")))
	s.Left(":1")
	_, err := s.Clear(":1")
	must(t, err)
	if names := d.names(); names != "" {
		t.Errorf("files %s", names)
	}
}

func TestFilesAreReadableByAll(t *testing.T) {
	d := newDirs(t)
	d.state = filepath.Join(d.state, "not", "there", "yet")
	must(t, d.open().Set(of("! 192.0.2.1")))
	info, err := os.Stat(filepath.Join(d.state, persistentFile))
	must(t, err)
	if info.Mode() != 0o644 {
		t.Errorf("mode %s", info.Mode())
	}
}

// ownMounts gives the rest of the test mounts of its own: the thread is not used again.
func ownMounts(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatalf("mounts of its own, which need root: %v", err)
	}
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
}

func TestWhatCannotBeWrittenIsRefusedAndChangesNothing(t *testing.T) {
	for _, tc := range []struct {
		name, options string
		break_        func(dir string) error
		want          error
		frozen        bool // nothing can be removed either
	}{
		{"read-only", "", func(dir string) error { return unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "") }, unix.EROFS, true},
		{"full", "size=16k", func(dir string) error {
			err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 1<<20), 0o600)
			if !errors.Is(err, unix.ENOSPC) {
				return fmt.Errorf("the disk is not full: %w", err)
			}
			return nil
		}, unix.ENOSPC, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ownMounts(t)
			d := newDirs(t)
			for _, dir := range []string{d.state, d.runtime} {
				must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, tc.options))
				defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }() // so that the folder can be removed
			}
			s := d.open()
			must(t, s.Set(of(":1 192.0.2.1")))
			must(t, s.Set(of("! 192.0.2.2")))
			const before = "! 192.0.2.2; :1 192.0.2.1"
			for _, dir := range []string{d.state, d.runtime} {
				must(t, tc.break_(dir))
			}
			for _, o := range []string{"! 192.0.2.3", ":1 192.0.2.3", ":2 192.0.2.3"} {
				if err := s.Set(of(o)); !errors.Is(err, tc.want) {
					t.Errorf("set %s: %v", o, err)
				}
			}
			expect(t, s, before)
			expect(t, d.open(), before)
			if !tc.frozen {
				return // what ends needs no room
			}
			for _, holder := range []string{":1", ":2"} {
				if _, err := s.Clear(holder); !errors.Is(err, tc.want) {
					t.Errorf("clear %s: %v", holder, err)
				}
			}
			expect(t, s, before)
			// Who has left has left: the file is behind, and that is said.
			if !s.Left(":1") || len(s.Problems()) != 1 || !strings.Contains(s.Problems()[0], livingFile) {
				t.Errorf("problems %q", s.Problems())
			}
			expect(t, s, "! 192.0.2.2")
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(good), true)
	f.Add([]byte(`{"overrides": [{"servers": ["2001:db8::1", "::ffff:1.2.3.4"], "holder": ":1.5", "by": "\u0007", "number": 1}]}`), false)
	f.Fuzz(func(t *testing.T, text []byte, persistent bool) {
		entries, err := decode(text, persistent)
		if err != nil {
			return
		}
		if len(entries) > MaxHolders {
			t.Errorf("%d overrides", len(entries))
		}
		for _, e := range entries {
			if len(e.Servers) == 0 || len(e.Servers) > MaxServers || e.Persistent != persistent || (e.Holder == "") != persistent {
				t.Errorf("%+v", e)
			}
		}
		written, err := encode(entries)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := decode(written, persistent)
		if err != nil || !reflect.DeepEqual(again, entries) {
			t.Errorf("%+v became %+v, %v", entries, again, err)
		}
	})
}
