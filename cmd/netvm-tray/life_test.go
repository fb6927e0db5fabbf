package main

import (
	"errors"
	"image"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"netvmd/internal/lab"
	"netvmd/internal/lab/desktop"
)

// ends waits until the tray has ended with an exit code, and left no files.
func (s *scene) ends(code int) {
	s.t.Helper()
	s.endsAs(s.tray, code)
	for _, dir := range []string{s.Runtime(), s.Temporary(), s.Home()} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				s.t.Errorf("%s was left behind", path)
			}
			return err
		})
		s.must(err)
	}
}

func (s *scene) endsAs(p *lab.Process, code int) {
	s.t.Helper()
	select {
	case <-p.Ended():
	case <-time.After(patience):
		s.t.Fatalf("the tray goes on; it said:\n%s", strings.Join(p.Log(), ""))
	}
	got := 0
	var exit *exec.ExitError
	if err := p.ExitError(); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		s.must(err)
	}
	if got != code {
		s.t.Errorf("the tray ended with exit code %d, want %d; it said:\n%s", got, code, strings.Join(p.Log(), ""))
	}
}

// printed waits until the tray has printed a line that contains the words, and returns what else it printed.
func (s *scene) printed(words ...string) (others []string) {
	s.t.Helper()
	line, err := s.tray.AwaitLog(s.ctx, 0, words...)
	s.must(err)
	for _, l := range s.tray.Log() {
		if l != line {
			others = append(others, l)
		}
	}
	return others
}

// How soon is what `netvm-lab bench --part tray` shows.
func TestTheIconDocksAfterTheStart(t *testing.T) {
	overPanels(t, func(t *testing.T, kind desktop.Kind) {
		s := open(t, desktop.Options{})
		s.startPanel(kind, 22)
		began := time.Now()
		s.run()
		icon := s.icon(22)
		s.settle(icon, shown(example(t, "ethernet")))
		t.Logf("it took %s", time.Since(began))
	})
}

func TestTheIconDocksAgainWhenThePanelComesBack(t *testing.T) {
	overPanels(t, func(t *testing.T, kind desktop.Kind) {
		s, icon := docked(t, kind, 22)
		s.settle(icon, shown(example(t, "ethernet")))
		s.must(s.panel.Stop(s.ctx)) // by SIGKILL: tint2 takes the icon's window with it
		s.become(example(t, "offline"))
		s.strays()
		s.startPanel(kind, 48)
		s.settle(s.icon(48), shown(example(t, "offline")))
		s.become(example(t, "wifi-good"))
		s.settle(s.icon(48), shown(example(t, "wifi-good")))
	})
}

// strays waits until nothing is to be seen where panels are: an icon without a panel is no window on the desktop.
func (s *scene) strays() {
	s.t.Helper()
	corner := image.Rect(0, 0, 300, 60)
	picture, err := s.Screen.AwaitPicture(s.ctx, corner, "an empty screen", func(p *image.RGBA) bool { return ink(p).Empty() })
	if err != nil {
		s.keep(picture)
	}
	s.must(err)
}

func TestItWaitsForAPanel(t *testing.T) {
	s := open(t, desktop.Options{})
	s.run()
	s.printed("no panel")
	s.strays()
	s.startPanel(desktop.Trayer, 24)
	s.settle(s.icon(24), shown(example(t, "ethernet")))
}

func TestItFollowsNetvmdOverItsRestarts(t *testing.T) {
	s, icon := docked(t, desktop.Trayer, 22)
	for _, name := range []string{"netvmd-stopped", "ethernet", "netvmd-stopped", "networkmanager-stopped", "wifi-fair"} {
		s.become(example(t, name))
		s.settle(icon, shown(example(t, name)))
	}
}

func TestItStartsWithoutNetvmd(t *testing.T) {
	s := open(t, desktop.Options{})
	s.become(example(t, "netvmd-stopped"))
	s.startPanel(desktop.Trayer, 22)
	s.run()
	icon := s.icon(22)
	s.settle(icon, shown(example(t, "netvmd-stopped")))
	s.become(example(t, "ethernet"))
	s.settle(icon, shown(example(t, "ethernet")))
}

func TestWithoutASessionBusItSaysSoInOneLine(t *testing.T) {
	s := open(t, desktop.Options{NoBus: true})
	s.startPanel(desktop.Trayer, 22)
	s.run()
	icon := s.icon(22)
	s.become(example(t, "portal"))
	s.settle(icon, shown(example(t, "portal")))
	for _, line := range s.printed("session bus") {
		if !strings.Contains(line, "level=INFO") {
			t.Errorf("it also said %q", line)
		}
	}
}

func TestWithoutADisplayItSaysSoInOneLine(t *testing.T) {
	for name, display := range map[string]string{"none is named": "DISPLAY=", "none answers": "DISPLAY=:4711"} {
		t.Run(name, func(t *testing.T) {
			s := open(t, desktop.Options{})
			var err error
			s.tray, err = s.Start(s.ctx, []string{display}, trayPath)
			s.must(err)
			s.ends(1)
			if said := s.tray.Log(); len(said) != 1 || !strings.Contains(said[0], "no display") {
				t.Errorf("it said %q", said)
			}
		})
	}
}

func TestASecondOneLeavesTheFirstAlone(t *testing.T) {
	s, _ := docked(t, desktop.Trayer, 22)
	second, err := s.Start(s.ctx, nil, trayPath)
	s.must(err)
	s.endsAs(second, 0)
	if said := second.Log(); len(said) != 1 || !strings.Contains(said[0], "already") {
		t.Errorf("the second said %q", said)
	}
	s.icon(22)
}

func TestAKilledOneIsFollowedByTheNext(t *testing.T) {
	s, _ := docked(t, desktop.Trayer, 22)
	s.must(s.tray.Stop(s.ctx, syscall.SIGKILL))
	s.run()
	s.settle(s.icon(22), shown(example(t, "ethernet")))
	s.must(s.tray.Signal(syscall.SIGTERM))
	s.ends(0) // and of the first one's files nothing is left either
}

func TestItEndsWithoutLeavingAnything(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(*scene) error
		code int
	}{
		{"at SIGTERM", func(s *scene) error { return s.tray.Signal(syscall.SIGTERM) }, 0},
		{"at SIGHUP", func(s *scene) error { return s.tray.Signal(syscall.SIGHUP) }, 0},
		{"at the end of the session bus", func(s *scene) error { return s.Bus.Stop(s.ctx) }, 0},
		{"at the end of the X server", func(s *scene) error { return s.KillX(s.ctx) }, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := docked(t, desktop.Trayer, 22)
			s.must(tc.end(s))
			s.ends(tc.code)
		})
	}
}

func TestItRunsOnlyWhereQubesHasTheServiceOn(t *testing.T) {
	// Qubes' folder, on the lab's own /run.
	if err := os.MkdirAll(serviceFolder, 0o755); err != nil {
		t.Fatal(err)
	}
	s := open(t, desktop.Options{})
	s.startPanel(desktop.Trayer, 22)
	s.run("--service", "netvm-tray")
	s.ends(0)
	if said := s.tray.Log(); len(said) > 0 {
		t.Errorf("it said %q", said)
	}
	on := filepath.Join(serviceFolder, "netvm-tray")
	s.must(os.WriteFile(on, nil, 0o644))
	defer os.Remove(on) // it ends with the lab anyway
	s.run("--service", "netvm-tray")
	s.icon(22)
}
