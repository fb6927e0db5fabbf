package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"netvmd/internal/lab"
	"netvmd/internal/lab/desktop"
	"netvmd/tray/view"
)

// choose clicks on the icon and picks a row.
func (s *scene) choose(icon desktop.Window, text string) {
	s.t.Helper()
	_, err := s.OpenMenu(s.ctx, icon)
	s.must(err)
	s.must(s.Choose(s.ctx, text))
	s.must(s.CloseMenu(s.ctx)) // it closes by itself; until then no click opens it anew
}

// says waits until one of the menu's rows contains the words.
func (s *scene) says(words ...string) {
	s.t.Helper()
	var last string
	err := s.AwaitMenu(s.ctx, func(menu desktop.Item) bool {
		last = menu.String()
		for _, line := range strings.Split(last, "\n") {
			if containsAll(line, words) {
				return true
			}
		}
		return false
	})
	if err != nil {
		s.t.Fatalf("no row with %q in:\n%s", words, last)
	}
}

func containsAll(line string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(line, w) {
			return false
		}
	}
	return true
}

// arrives waits for a line that a stand-in wrote into a file.
func (s *scene) arrives(path, line string) {
	s.t.Helper()
	var text []byte
	for began := time.Now(); time.Since(began) < patience; time.Sleep(20 * time.Millisecond) {
		if text, _ = os.ReadFile(path); strings.Contains(string(text), line+"\n") {
			return
		}
	}
	s.t.Fatalf("%s has %q, want %q", path, text, line)
}

func TestRefreshIsAskedOfNetvmdEachTime(t *testing.T) {
	s, icon := docked(t, desktop.Trayer, 22)
	for n := range 2 {
		s.choose(icon, "Refresh DNS")
		select {
		case <-s.netvmd.Refreshed:
		case <-time.After(patience):
			t.Fatalf("netvmd was not asked at click %d", n+1)
		}
		s.says("DNS was refreshed: all was as it should be")
	}
	s.netvmd.Fail(fmt.Errorf("the kernel is on strike"))
	s.choose(icon, "Refresh DNS")
	s.says("the kernel is on strike")
}

func TestWhatIsNotAllowedSaysWhy(t *testing.T) {
	s := open(t, desktop.Options{User: lab.Nobody})
	s.startPanel(desktop.Trayer, 22)
	s.run()
	s.choose(s.icon(22), "Refresh DNS")
	s.says("not allowed", "only root may")
	select {
	case <-s.netvmd.Refreshed:
		t.Error("netvmd was asked by a user without rights")
	default:
	}
}

func TestProgramsAreStartedAndTheirFailuresTold(t *testing.T) {
	s, icon := docked(t, desktop.Trayer, 22)
	started := filepath.Join(s.Home(), "started")
	s.must(s.StandIn("nm-connection-editor", `echo "editor $*" >>`+started))
	s.must(s.StandIn("xdg-open", `echo "opened $*" >>`+started))
	portal := example(t, "portal")
	s.become(portal)
	s.must(s.Screen.AwaitTitle(s.ctx, shown(portal).Title))
	for range 2 {
		s.choose(icon, "Edit connections")
		s.arrives(started, "editor ")
		s.choose(icon, "Log in to the captive portal")
		s.arrives(started, "opened "+portal.Status.PortalURL)
		s.must(os.Remove(started))
	}
	s.must(s.StandIn("nm-connection-editor", "exit 7"))
	s.choose(icon, "Edit connections")
	s.says("nm-connection-editor failed with exit code 7")
}

func TestTheReportGoesToTheClipboardAndToAFile(t *testing.T) {
	s, icon := docked(t, desktop.Trayer, 22)
	const report = "netvmctl of the lab\nçà et là\n"
	s.must(s.StandIn("netvmctl", `[ "$1" = report ] && printf 'netvmctl of the lab\nçà et là\n'`))
	for range 2 {
		s.choose(icon, "Copy a diagnostic report")
		s.says("the report is on the clipboard: 2 lines")
		text, err := s.Clipboard(s.ctx)
		s.must(err)
		if text != report {
			t.Fatalf("%q is on the clipboard", text)
		}
		s.choose(icon, "Save a diagnostic report")
		s.says("the report is in " + s.Home() + "/netvm-report-")
	}
	files, err := filepath.Glob(filepath.Join(s.Home(), "netvm-report-*"))
	s.must(err)
	if len(files) != 2 {
		t.Fatalf("reports: %q", files)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		s.must(err)
		if string(text) != report {
			t.Errorf("%q is in %s", text, f)
		}
	}
	s.must(s.StandIn("netvmctl", "echo 'netvmctl: no such luck' >&2; exit 1"))
	s.choose(icon, "Copy a diagnostic report")
	s.says("no such luck")
	s.must(s.StandIn("netvmctl", "head -c 2000000 /dev/zero | tr '\\0' x"))
	s.choose(icon, "Copy a diagnostic report")
	s.says("longer than")
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	s := open(t, desktop.Options{})
	s.startPanel(desktop.Trayer, 22)
	tray, err := s.Start(s.ctx, []string{"PATH=/nonexistent"}, trayPath)
	s.must(err)
	s.tray = tray
	s.icon(22)
	known := example(t, "ethernet")
	known.Hindered = map[view.Action]string{
		view.Edit: "nm-connection-editor is not installed", view.Login: "xdg-open is not installed",
		view.CopyReport: "netvmctl is not installed", view.SaveReport: "netvmctl is not installed",
	}
	s.reads(known)
}

func TestQuitEndsItForGood(t *testing.T) {
	s, icon := docked(t, desktop.Trayer, 22)
	s.choose(icon, "Quit")
	s.ends(0)
}
