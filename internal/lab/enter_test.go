package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roleVariable makes the test binary play a program of its own in a lab inside of the tests' namespaces.
const roleVariable = "NETVM_LAB_TEST_ROLE"

// play is what TestMain does in such a role; it returns the exit code.
func play(role string) int {
	switch role {
	case "exit 7":
		return 7
	case "wait":
		fmt.Fprintln(os.Stdout, "ready")
	case "lab":
		if _, err := New(context.Background(), Options{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Fprintln(os.Stdout, "ready")
	}
	select {}
}

// start runs the test binary in a role and waits until it is ready, or until it has ended.
func start(t *testing.T, role string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err == nil && line != "ready\n" {
		t.Fatalf("it said %q", line)
	}
	return cmd
}

func TestTheExitCodeInsideIsTheExitCodeOutside(t *testing.T) {
	for _, test := range []struct {
		name, role string
		signal     syscall.Signal
		want       int
	}{
		{"the program ends by itself", "exit 7", 0, 7},
		{"the program is interrupted", "wait", unix.SIGINT, 128 + int(unix.SIGINT)},
		{"the program is terminated", "wait", unix.SIGTERM, 128 + int(unix.SIGTERM)},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := start(t, test.role)
			if test.signal != 0 {
				if err := cmd.Process.Signal(test.signal); err != nil {
					t.Fatal(err)
				}
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != test.want {
				t.Errorf("it ended with %v, want exit code %d", err, test.want)
			}
		})
	}
}

// inhabitants opens a handle of every process that is in a PID namespace below the tests' own, which no other
// test makes at the same time.
func inhabitants(t *testing.T) map[string]int {
	t.Helper()
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	handles := map[string]int{}
	for _, dir := range dirs {
		ns, err := os.Readlink(dir + "/ns/pid")
		if err != nil || ns == own {
			continue // it has ended meanwhile, or is one of ours
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			t.Fatal(err)
		}
		name, err := os.ReadFile(dir + "/comm")
		if err != nil {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatalf("open process %d: %v", pid, err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		handles[fmt.Sprintf("%s (%d)", strings.TrimSpace(string(name)), pid)] = fd
	}
	return handles
}

func TestNothingIsLeftBehindWhenTheProgramOutsideIsKilled(t *testing.T) {
	cmd := start(t, "lab")
	alive := inhabitants(t)
	// The program twice (PID 1 and itself), NetworkManager, dbus-daemon, a DNS server for each resolver, two DHCP servers.
	if want := 4 + len(homeSite.resolvers) + len(officeSite.resolvers) + len(vpnSite.resolvers) + 2; len(alive) < want {
		t.Errorf("%d processes in the lab, want at least %d: %v", len(alive), want, alive)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Errorf("it ended with %v, want a kill", err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for name, fd := range alive {
		if !endsBy(t, fd, deadline) {
			t.Errorf("%s is still there", name)
		}
	}
	for name, fd := range inhabitants(t) { // who came after the first look
		if !endsBy(t, fd, deadline) {
			t.Errorf("%s is still there", name)
		}
	}
}

// endsBy waits for the end of a process: a pidfd becomes readable then, whether its parent has taken note of it
// or not (pidfd_open(2)).
func endsBy(t *testing.T, fd int, deadline time.Time) bool {
	t.Helper()
	for {
		left := max(0, int(time.Until(deadline).Milliseconds()))
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, left)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatalf("wait for the end of a process: %v", err)
		}
		return n == 1
	}
}
