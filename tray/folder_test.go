package tray

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// runtimeFolder is a new XDG_RUNTIME_DIR.
func runtimeFolder(t *testing.T) string {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	return dir
}

func claim(t *testing.T, display string) *Folder {
	t.Helper()
	f, err := Claim(display)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestADisplayHasOneTray(t *testing.T) {
	runtimeFolder(t)
	first := claim(t, ":0")
	for _, same := range []string{":0", ":0.0", ":0.1"} {
		var held HeldError
		if _, err := Claim(same); !errors.As(err, &held) || !strings.Contains(err.Error(), "pid") {
			t.Errorf("%s: %v", same, err)
		}
	}
	claim(t, ":1").Leave()
	claim(t, "example.com:0").Leave()
	first.Leave()
	if _, err := os.Stat(first.Path); !os.IsNotExist(err) {
		t.Errorf("the folder stays: %v", err)
	}
	claim(t, ":0").Leave()
}

func TestWhatATrayThatDiedHasLeftIsTakenAway(t *testing.T) {
	runtimeFolder(t)
	dead := claim(t, ":0")
	left := filepath.Join(dead.Path, "systray_Xyz")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := dead.dir.Close(); err != nil { // as the kernel does for the dead
		t.Fatal(err)
	}
	defer claim(t, ":0").Leave()
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestOfManyThatStartAtOnceOneIsTheTray(t *testing.T) {
	runtimeFolder(t)
	for round := 0; round < 20; round++ {
		var all sync.WaitGroup
		claimed := make(chan *Folder, 8)
		for n := 0; n < cap(claimed); n++ {
			all.Add(1)
			go func() {
				defer all.Done()
				f, err := Claim(":0")
				if held := (HeldError{}); err != nil && !errors.As(err, &held) {
					t.Error(err)
				}
				if err == nil {
					claimed <- f
				}
			}()
		}
		all.Wait()
		if len(claimed) != 1 {
			t.Fatalf("%d trays", len(claimed))
		}
		(<-claimed).Leave()
	}
}

// With leaving, too: a claim that comes while the folder is taken away gets a folder of its own, or an error.
func TestTwoNeverHoldTheFolderAtOnce(t *testing.T) {
	runtimeFolder(t)
	var holding sync.Mutex
	var all sync.WaitGroup
	for n := 0; n < 4; n++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for round := 0; round < 100; round++ {
				f, err := Claim(":0")
				if err != nil {
					continue
				}
				if !holding.TryLock() {
					t.Error("two hold it")
					return
				}
				if pid, err := os.ReadFile(filepath.Join(f.Path, pidFile)); err != nil || string(pid) != strconv.Itoa(os.Getpid()) {
					t.Errorf("it is held by %q, %v", pid, err)
				}
				holding.Unlock()
				f.Leave()
			}
		}()
	}
	all.Wait()
}

func TestAFolderThatWasReplacedIsNotThatFolder(t *testing.T) {
	path := filepath.Join(runtimeFolder(t), "folder")
	made := func() *os.File {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		dir, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	before := made()
	defer before.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	now := made()
	defer now.Close()
	if isStill(before, path) || !isStill(now, path) {
		t.Error("the one before is taken for the one that is there now")
	}
}

func TestAFolderThatSomebodyElsePreparedIsNotTaken(t *testing.T) {
	for name, prepare := range map[string]func(path string) error{
		"one that others may read": func(path string) error { return os.Mkdir(path, 0o755) },
		"a link":                   func(path string) error { return os.Symlink(os.TempDir(), path) },
		"a file":                   func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"another user's": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.Chown(path, os.Getuid()+1, -1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := prepare(filepath.Join(runtimeFolder(t), "netvm-tray-:0")); err != nil {
				t.Fatal(err)
			}
			if f, err := Claim(":0"); err == nil {
				f.Leave()
				t.Error("it was taken")
			}
		})
	}
}

func TestAPlaceOfTheUsersOwnIsFound(t *testing.T) {
	own, others := t.TempDir(), t.TempDir()
	if err := os.Chmod(others, 0o777); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", "")
	for name, test := range map[string]struct{ runtime, home, want string }{
		"the session's":                              {own, home, own},
		"the home's without a session's":             {"", home, filepath.Join(home, ".cache")},
		"the home's when the other is everybody's":   {others, home, filepath.Join(home, ".cache")},
		"the home's when the other is not there":     {filepath.Join(own, "none"), home, filepath.Join(home, ".cache")},
		"the home's when the other is no whole path": {"run", home, filepath.Join(home, ".cache")},
		"none without either, which is an error":     {"", "", ""},
		"none in a home that everybody can write to": {"", others, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("XDG_RUNTIME_DIR", test.runtime)
			t.Setenv("HOME", test.home)
			if test.home == others {
				t.Setenv("XDG_CACHE_HOME", others)
			}
			got, err := baseFolder()
			if (err != nil) != (test.want == "") || err == nil && got != test.want {
				t.Errorf("%q, %v; want %q", got, err, test.want)
			}
		})
	}
}

func FuzzFileName(f *testing.F) {
	for _, display := range []string{":0", ":0.0", "wayland-0", "/tmp/.X11-unix/X0", "[::1]:10.0", "\x00"} {
		f.Add(display)
	}
	f.Fuzz(func(t *testing.T, display string) {
		name := fileName(display)
		if strings.ContainsAny(name, "/\x00\n") {
			t.Errorf("%q", name)
		}
	})
}
