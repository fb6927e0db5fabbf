package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"netvmd/internal/lab"
)

var update = flag.Bool("update", false, "write what is printed into the scripts' golden files")

// patience bounds each wait for an event.
const patience = 20 * time.Second

func TestScripts(t *testing.T) {
	deadline, _ := t.Deadline() // zero = none
	testscript.RunT(inTurn{t}, testscript.Params{
		Deadline: deadline,
		Dir:      "testdata", UpdateScripts: *update, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // netvmctl with the race detector would wait a second at its end
			env.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(env.WorkDir, "bus"))
			env.Values[sceneKey{}] = &scene{}
			// The unprivileged user runs netvmctl too, which lies two folders deep in one that only root may enter.
			bin := filepath.Dir(strings.SplitN(env.Getenv("PATH"), ":", 2)[0])
			return errors.Join(os.Chmod(bin, 0o755), os.Chmod(env.WorkDir, 0o755), os.Chmod(filepath.Dir(env.WorkDir), 0o755))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"bus": startBus, "netvmd": startNetvmd, "stop-netvmd": stopNetvmd, "exits": exits, "start": start, "sees": sees, "ends": ends,
			"systemd": listen, "told": told, "becomes": becomes,
		},
	})
}

// inTurn runs the scripts one after another: the bus that the stand-in serves on is named by this process' environment.
type inTurn struct{ *testing.T }

func (inTurn) Parallel()     {}
func (inTurn) Verbose() bool { return testing.Verbose() }

func (t inTurn) Run(name string, script func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { script(inTurn{t}) })
}

// scene is what a script has beside its files.
type scene struct {
	netvmd  *lab.StandIn
	program *exec.Cmd
	output  io.Closer
	lines   chan string
	notify  *net.UnixConn
}

type sceneKey struct{}

func sceneOf(ts *testscript.TestScript) *scene { return ts.Value(sceneKey{}).(*scene) }

// startBus starts a real dbus-daemon.
func startBus(ts *testscript.TestScript, _ bool, _ []string) {
	bus, err := lab.StartOpenBus(context.Background(), "bus of a script", ts.MkAbs("bus"))
	ts.Check(err)
	ts.Defer(func() { ts.Check(bus.Stop(context.Background())) })
}

// startNetvmd starts the stand-in for netvmd with a status: netvmd NAME.
func startNetvmd(ts *testscript.TestScript, _ bool, args []string) {
	status, known := statuses[args[0]]
	if !known {
		ts.Fatalf("no status %q", args[0])
	}
	s := sceneOf(ts)
	ts.Check(os.Setenv("DBUS_SYSTEM_BUS_ADDRESS", ts.Getenv("DBUS_SYSTEM_BUS_ADDRESS")))
	var err error
	s.netvmd, err = lab.ServeStandIn(context.Background(), status)
	ts.Check(err)
	s.netvmd.Count(tally, nil)
	ts.Defer(func() { ts.Check(s.netvmd.Stop()) })
}

func stopNetvmd(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(sceneOf(ts).netvmd.Stop()) }

// becomes publishes another status: becomes NAME.
func becomes(ts *testscript.TestScript, _ bool, args []string) {
	sceneOf(ts).netvmd.Publish(statuses[args[0]])
}

// exits runs a program and wants an exit code: exits CODE PROGRAM ARGUMENT...
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%q exits with %d, want %d", args[1:], got, want)
	}
}

// start runs a program beside the script: start PROGRAM ARGUMENT...
func start(ts *testscript.TestScript, _ bool, args []string) {
	path, err := exec.LookPath(args[0])
	ts.Check(err)
	cmd := exec.Command(path, args[1:]...)
	for _, name := range []string{"PATH", "TZ", "GORACE", "DBUS_SYSTEM_BUS_ADDRESS", "NOTIFY_SOCKET"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	ts.Check(cmd.Start())
	lines := make(chan string, 64)
	s := sceneOf(ts)
	s.program, s.output, s.lines = cmd, in, lines
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = in.Close()
	})
}

// sees waits for the started program's next line and wants it to match: sees REGEXP.
func sees(ts *testscript.TestScript, _ bool, args []string) {
	select {
	case line, ok := <-sceneOf(ts).lines:
		if !ok || !regexp.MustCompile(args[0]).MatchString(line) {
			ts.Fatalf("%q is not %q", line, args[0])
		}
		ts.Logf("%s", line)
	case <-time.After(patience):
		ts.Fatalf("nothing was printed within %s", patience)
	}
}

// ends sends a signal to the started program and wants it to exit with 0, soon and without another word: ends INT.
func ends(ts *testscript.TestScript, _ bool, args []string) {
	signals := map[string]os.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}
	s := sceneOf(ts)
	ts.Check(s.program.Process.Signal(signals[args[0]]))
	done := make(chan error, 1)
	go func() { done <- s.program.Wait(); _ = s.output.Close() }()
	select {
	case err := <-done:
		ts.Check(err)
	case <-time.After(patience):
		ts.Fatalf("it does not end")
	}
	for line := range s.lines {
		ts.Fatalf("it ends with %q", line)
	}
}

// listen is systemd's side of sd_notify.
func listen(ts *testscript.TestScript, _ bool, _ []string) {
	address := &net.UnixAddr{Name: ts.MkAbs("notify"), Net: "unixgram"}
	conn, err := net.ListenUnixgram("unixgram", address)
	ts.Check(err)
	ts.Defer(func() { _ = conn.Close() })
	sceneOf(ts).notify = conn
	ts.Setenv("NOTIFY_SOCKET", address.Name)
}

// told waits for a message to systemd and wants it to match: told REGEXP.
func told(ts *testscript.TestScript, _ bool, args []string) {
	conn := sceneOf(ts).notify
	ts.Check(conn.SetReadDeadline(time.Now().Add(patience)))
	message := make([]byte, 4096)
	n, err := conn.Read(message)
	ts.Check(err)
	if !regexp.MustCompile(args[0]).Match(message[:n]) {
		ts.Fatalf("systemd was told %q", message[:n])
	}
}
