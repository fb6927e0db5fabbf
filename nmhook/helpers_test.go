package nmhook

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"netvmd/internal/netvm"
)

// patience is how long a test waits for what must happen. It is only reached by a failing test.
const patience = 20 * time.Second

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/><allow receive_sender="*" eavesdrop="true"/>
  </policy>
</busconfig>
`

// testBus is a real dbus-daemon of the test's own, named by DBUS_SYSTEM_BUS_ADDRESS. As that is the whole
// process's, tests with a bus run one after another.
type testBus struct {
	config, socket string
	daemon         *exec.Cmd
}

func startBus(t *testing.T) *testBus {
	t.Helper()
	folder, err := os.MkdirTemp("", "nmhook") // a socket's path must be short, unix(7)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	b := &testBus{config: filepath.Join(folder, "bus.conf"), socket: filepath.Join(folder, "bus")}
	writeFile(t, b.config, fmt.Sprintf(busConfig, b.socket))
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+b.socket)
	b.start(t)
	t.Cleanup(b.stop)
	return b
}

// start returns when the daemon listens: it prints its address then.
func (b *testBus) start(t *testing.T) {
	t.Helper()
	os.Remove(b.socket)
	b.daemon = exec.Command("dbus-daemon", "--nofork", "--nosyslog", "--nopidfile", "--print-address=1", "--config-file="+b.config)
	b.daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := b.daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.daemon.Start(); err != nil {
		t.Fatalf("this test needs dbus-daemon: %v", err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("dbus-daemon does not start: %v", err)
	}
}

func (b *testBus) stop() {
	if b.daemon != nil {
		_ = b.daemon.Process.Kill()
		_ = b.daemon.Wait() // it was killed
		b.daemon = nil
	}
}

// watching is a Watcher that runs, and the last view taken from it.
type watching struct {
	*Watcher
	t    *testing.T
	file string // its resolv.conf
	view netvm.View
	took int // views
}

// watch runs a Watcher until the test ends; its resolv.conf is in a folder of its own and does not exist.
func watch(t *testing.T) *watching {
	t.Helper()
	return watchFile(t, filepath.Join(t.TempDir(), "resolv.conf"))
}

func watchFile(t *testing.T, path string) *watching {
	t.Helper()
	log := slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w := New(Config{ResolvConf: path, Log: log})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end with its context")
		}
	})
	return &watching{Watcher: w, t: t, file: path}
}

// testLog prints the watcher's log beside the test's.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// until takes views until one is as wanted.
func (w *watching) until(what string, wanted func(netvm.View) bool) netvm.View {
	w.t.Helper()
	deadline := time.After(patience)
	for w.took == 0 || !wanted(w.view) {
		select {
		case <-w.Changed():
			w.view = w.Take()
			w.took++
		case <-deadline:
			w.t.Fatalf("never happened: %s; the last of %d views is %+v", what, w.took, w.view)
		}
	}
	return w.view
}

// next waits for one more view.
func (w *watching) next(what string) netvm.View {
	w.t.Helper()
	select {
	case <-w.Changed():
		w.view = w.Take()
		w.took++
	case <-time.After(patience):
		w.t.Fatalf("no view came: %s; the last of %d is %+v", what, w.took, w.view)
	}
	return w.view
}

// quiet fails if something is to be taken.
func (w *watching) quiet(what string) {
	w.t.Helper()
	select {
	case <-w.Changed():
		w.t.Fatalf("%s must change nothing, but gave %+v", what, w.Take())
	default:
	}
}

func hasFault(part string) func(netvm.View) bool {
	return func(v netvm.View) bool { return faultWith(v, part) }
}

func faultWith(v netvm.View, part string) bool {
	for _, f := range v.Faults {
		if strings.Contains(f, part) {
			return true
		}
	}
	return false
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}
