package tray

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"netvmd/internal/lab"
	"netvmd/internal/netvm"
	"netvmd/tray/view"
)

// programs puts shell scripts into a folder that alone is searched for programs.
func programs(t *testing.T, scripts map[string]string) *errands {
	dir := t.TempDir()
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	return &errands{environ: append(os.Environ(), "PATH="+dir+":/usr/bin:/bin"), copy: func(string) { t.Error("something was copied") }}
}

// outcomes does one errand and gives what it came to, and what came later if more is wanted.
func (e *errands) outcomes(t *testing.T, action view.Action, known view.Known, count int) []string {
	t.Helper()
	told := make(chan outcome)
	go e.do(context.Background(), action, known, told)
	var sentences []string
	for done := 0; len(sentences) < count; {
		o := receive(t, told)
		if sentences = append(sentences, o.sentence); o.done {
			done++
		}
		if len(sentences) == count && done != 1 {
			t.Errorf("it ended %d times", done)
		}
	}
	return sentences
}

func TestTheProgramsAreStarted(t *testing.T) {
	seen := filepath.Join(t.TempDir(), "seen")
	e := programs(t, map[string]string{
		"nm-connection-editor": fmt.Sprintf("echo editor \"$TMPDIR\" >>%s; exit 1", seen),
		"xdg-open":             fmt.Sprintf("echo opener \"$@\" >>%s; exit 4", seen),
	})
	e.environ = append(e.environ, "TMPDIR=/tmp/of-the-user")
	t.Setenv("TMPDIR", "/tmp/of-the-tray")
	hostile := view.Known{Status: netvm.Status{PortalURL: "http://portal.example/$(reboot);`id`?a=b&c='\"d"}}
	got := append(e.outcomes(t, view.Edit, view.Known{}, 2), e.outcomes(t, view.Login, hostile, 2)...)
	want := []string{
		"The connection editor was started", "nm-connection-editor failed with exit code 1",
		"The portal was opened: http://portal.example/$(reboot);`id`?a=b&c='\"d", "xdg-open failed with exit code 4",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	text, err := os.ReadFile(seen)
	if want := "editor /tmp/of-the-user\nopener http://portal.example/$(reboot);`id`?a=b&c='\"d\n"; err != nil || string(text) != want {
		t.Errorf("the programs saw %q, %v; want %q", text, err, want)
	}
}

func TestWhatIsMissingIsNamedBeforeAndAfterTheClick(t *testing.T) {
	e := programs(t, nil)
	want := map[view.Action]string{
		view.Edit: "nm-connection-editor is not installed", view.Login: "xdg-open is not installed",
		view.CopyReport: "netvmctl is not installed", view.SaveReport: "netvmctl is not installed",
	}
	if diff := cmp.Diff(want, hindered()); diff != "" {
		t.Errorf("hindered (-want +got):\n%s", diff)
	}
	for action, why := range want {
		known := view.Known{Status: netvm.Status{PortalURL: "http://portal.example/"}}
		if got := e.outcomes(t, action, known, 1); got[0] != why {
			t.Errorf("%s: %q", action, got)
		}
	}
}

func TestOnlyAddressesOfTheWebAreOpened(t *testing.T) {
	seen := filepath.Join(t.TempDir(), "seen")
	e := programs(t, map[string]string{"xdg-open": "echo \"$@\" >>" + seen})
	for _, address := range []string{"", "file:///etc/passwd", "--help"} {
		got := e.outcomes(t, view.Login, view.Known{Status: netvm.Status{PortalURL: address}}, 1)
		if !strings.HasPrefix(got[0], "xdg-open is not given the portal's address: ") {
			t.Errorf("%q: %q", address, got)
		}
	}
	if text, err := os.ReadFile(seen); err == nil {
		t.Errorf("opened: %q", text)
	}
}

func TestAReportIsCopied(t *testing.T) {
	e := programs(t, map[string]string{"netvmctl": `[ "$*" = report ] && printf 'one\ntwo\n'`})
	var copied string
	e.copy = func(text string) { copied = text }
	if got := e.outcomes(t, view.CopyReport, view.Known{}, 1); got[0] != "The report is on the clipboard: 2 lines" || copied != "one\ntwo\n" {
		t.Errorf("%q; copied %q", got, copied)
	}
}

func TestAReportIsSavedAndNeverOverAnotherFile(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	for n, want := range []string{"r.txt", "r-2.txt", "r-3.txt"} {
		path, err := writeNew(home, "r", fmt.Sprint(n))
		if err != nil || path != filepath.Join(home, want) {
			t.Errorf("%s, %v", path, err)
		}
	}
	first, err := os.ReadFile(filepath.Join(home, "r.txt"))
	if err != nil || string(first) != "0" {
		t.Errorf("the first is %q, %v", first, err)
	}
	e := programs(t, map[string]string{"netvmctl": "echo report"})
	got := e.outcomes(t, view.SaveReport, view.Known{}, 1)[0]
	path, is := strings.CutPrefix(got, "The report is in ")
	if matched, _ := filepath.Match(filepath.Join(home, "netvm-report-20??????-??????.txt"), path); !is || !matched {
		t.Fatal(got)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 || info.Size() != int64(len("report\n")) {
		t.Errorf("%v, %v", info, err)
	}
}

func TestAReportThatFailsIsSaidAndNotKept(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	for name, test := range map[string]struct{ script, want string }{
		"with a word":    {"echo half; echo 'no such command' >&2; echo more >&2; exit 2", `netvmctl report failed with exit code 2: "no such command"`},
		"without a word": {"exit 1", "netvmctl report failed with exit code 1"},
		"without an end": {"exec yes without end", "netvmctl report is longer than 1048576 bytes"},
		"by a signal":    {"kill -9 $$", "netvmctl report failed: signal: killed"},
	} {
		t.Run(name, func(t *testing.T) {
			e := programs(t, map[string]string{"netvmctl": test.script})
			if got := e.outcomes(t, view.CopyReport, view.Known{}, 1)[0]; got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// stage has the real service play netvmd, on a bus of its own.
func stage(t *testing.T) *lab.StandIn {
	ctx := context.Background()
	bus, err := lab.StartOpenBus(ctx, "system bus", filepath.Join(t.TempDir(), "bus"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bus.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.Address())
	netvmd, err := lab.ServeStandIn(ctx, online(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netvmd.Stop() })
	return netvmd
}

func TestRefreshAsksNetvmd(t *testing.T) {
	netvmd, e := stage(t), &errands{}
	if got := e.outcomes(t, view.Refresh, view.Known{}, 1)[0]; got != "DNS was refreshed: all was as it should be" {
		t.Error(got)
	}
	receive(t, netvmd.Refreshed)
	netvmd.Fail(errors.New("the kernel does not answer"))
	if got := e.outcomes(t, view.Refresh, view.Known{}, 1)[0]; !strings.HasPrefix(got, "DNS was not refreshed: ") || !strings.Contains(got, "the kernel does not answer") {
		t.Error(got)
	}
	if err := netvmd.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := e.outcomes(t, view.Refresh, view.Known{}, 1)[0]; !strings.HasPrefix(got, "DNS was not refreshed: netvmd is not running") {
		t.Error(got)
	}
}

func TestTheCountersAreReadAtOnceAndAgain(t *testing.T) {
	netvmd := stage(t)
	traffic := []netvm.Traffic{{Vif: "vif1.0", RxBytes: 1, RxPackets: 2, TxBytes: 3, TxPackets: 4}}
	anywhere := netip.IPv4Unspecified()
	netvmd.Count(netvm.Tally{Traffic: traffic}, []netvm.Route{{Destination: anywhere, Gateway: anywhere, Genmask: anywhere, Flags: "U", Interface: "eth0"}})
	ctx, cancel := context.WithCancel(context.Background())
	readings, ended := make(chan reading), make(chan struct{})
	go func() {
		defer close(ended)
		readLive(slog.New(slog.NewTextHandler(io.Discard, nil)))(ctx, readings)
	}()
	for n := 0; n < 2; n++ {
		r := receive(t, readings)
		if diff := cmp.Diff(traffic, r.traffic); diff != "" || len(r.routes) != 1 || r.routes[0].Interface != "eth0" {
			t.Errorf("reading %d: %+v", n, r)
		}
	}
	cancel()
	receive(t, ended)
}
