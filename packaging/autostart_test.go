package packaging_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What systemd makes user units of autostart entries with, and what it asks when the session begins.
const (
	autostartGenerator = "/usr/lib/systemd/user-generators/systemd-xdg-autostart-generator"
	autostartUnits     = "app-*@autostart.service"
)

// autostart is the folder of a session's configuration, with our entries in it.
type autostart struct {
	t   *testing.T
	dir string
}

func newAutostart(t *testing.T) autostart {
	t.Helper()
	a := autostart{t, t.TempDir()}
	for _, name := range []string{"netvm-tray.desktop", "netvm-tray-plain.desktop"} {
		text, err := os.ReadFile(filepath.Join("xdg", name))
		if err != nil {
			t.Fatal(err)
		}
		a.write("xdg/autostart/"+name, string(text), 0o644)
	}
	return a
}

func (a autostart) write(name, text string, mode os.FileMode) {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		a.t.Fatal(err)
	}
}

// session is what a real session of that desktop starts: the command lines. systemd reads the entries at login, and
// for each asks a program of its own whether it belongs to the desktop that has begun.
func (a autostart) session(desktop string) (started []string) {
	a.t.Helper()
	environ := []string{
		"HOME=" + a.dir, "XDG_CONFIG_HOME=" + filepath.Join(a.dir, "home"), "XDG_CONFIG_DIRS=" + filepath.Join(a.dir, "xdg"),
		"PATH=" + filepath.Join(a.dir, "bin"), "XDG_CURRENT_DESKTOP=" + desktop,
	}
	units := a.t.TempDir()
	generate := exec.Command(autostartGenerator, units, units, units)
	generate.Env = environ
	if out, err := generate.CombinedOutput(); err != nil {
		a.t.Fatalf("systemd reads the entries (package systemd): %v\n%s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(units, autostartUnits))
	if err != nil {
		a.t.Fatal(err)
	}
	for _, path := range found {
		unit, err := os.ReadFile(path)
		if err != nil {
			a.t.Fatal(err)
		}
		belongs := exec.Command("sh", "-c", setting(string(unit), "ExecCondition="))
		belongs.Env = environ
		if belongs.Run() == nil {
			line := strings.TrimPrefix(setting(string(unit), "ExecStart="), ":") // a word for systemd: expand no variables
			started = append(started, strings.ReplaceAll(line, a.dir+"/bin/", ""))
		}
	}
	return started
}

// setting is a unit's only one of that name; "" without one.
func setting(unit, name string) string {
	for _, line := range strings.Split(unit, "\n") {
		if value, ok := strings.CutPrefix(line, name); ok {
			return value
		}
	}
	return ""
}

func TestAutostart(t *testing.T) {
	const gated, plain = "netvm-tray --service network-manager", "netvm-tray"
	for _, tc := range []struct {
		name    string
		desktop string
		arrange func(autostart)
		want    []string
	}{
		// What Qubes' session calls itself in a netvm.
		{"a Qubes session starts the tray behind the service's gate", "QUBES:X-QUBES:X-NetVM:X-NONUPDATEABLE", nil, []string{gated}},
		{"GNOME starts the plain one", "GNOME", nil, []string{plain}},
		{"so does a session with two names", "ubuntu:GNOME", nil, []string{plain}},
		{"so does XFCE", "XFCE", nil, []string{plain}},
		{"so does a session without a name", "", nil, []string{plain}},
		{"without the program nothing is started", "GNOME", func(a autostart) {
			if err := os.Remove(filepath.Join(a.dir, "bin/netvm-tray")); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"a person who hid the entry is not asked again", "X-QUBES", func(a autostart) {
			a.write("home/autostart/netvm-tray.desktop", "[Desktop Entry]\nType=Application\nName=x\nHidden=true\n", 0o644)
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newAutostart(t)
			a.write("bin/netvm-tray", "#!/bin/sh\n", 0o755)
			if tc.arrange != nil {
				tc.arrange(a)
			}
			if got := a.session(tc.desktop); !slices.Equal(got, tc.want) {
				t.Errorf("started %q, want %q", got, tc.want)
			}
		})
	}
}
