package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// deaths are the system calls with which a command changes something. It is killed at the first of each kind, then at the
// second, and so on, until a run is over before. fsync is what the journal ends each line with, sendto speaks to the kernel.
var deaths = map[string][]string{
	"up":   {"fsync", "renameat", "sendto"},
	"down": {"fsync", "renameat", "unlinkat"},
}

// strides leave some instants out: the steps below sendto have tests of their own in internal/uplink.
var strides = map[string]int{"fsync": 1, "renameat": 1, "sendto": 4, "unlinkat": 2}

// maxDeaths is more than a run has calls of one kind.
const maxDeaths = 60

// kill runs the program under strace, which kills it at the n-th call of a kind; false = it was over before. strace looks
// at its first thread alone, and not at each xl.
func (s *scene) kill(call string, n int, command string) bool {
	s.t.Helper()
	cmd := s.command(command)
	strace := []string{"strace", "-qq", "-o", "/dev/null", "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n)}
	path, err := exec.LookPath(strace[0])
	s.must(err)
	cmd.Path, cmd.Args = path, append(strace, cmd.Args...)
	return s.finish(cmd).code != 0
}

// overDeaths kills a command at each instant, each time in a scene of its own.
func overDeaths(t *testing.T, command string, test func(s *scene, kill func() bool)) {
	for _, call := range deaths[command] {
		t.Run("at "+call, func(t *testing.T) {
			for n, killed := 1, true; killed; n += strides[call] {
				if n > maxDeaths {
					t.Fatalf("no end after %d", n)
				}
				t.Run(fmt.Sprint(n), func(t *testing.T) {
					s := newScene(t)
					s.guests(domain0, sysNet, work)
					test(s, func() bool {
						killed = s.kill(call, n, command)
						return killed
					})
				})
			}
		})
	}
}

func TestUpKilledAtAnyInstantIsTakenBackByDown(t *testing.T) {
	overDeaths(t, "up", func(s *scene, kill func() bool) {
		before := s.view()
		kill()
		s.runs("down")
		s.mustBe(before)
	})
}

func TestDownKilledAtAnyInstantIsFinishedByDown(t *testing.T) {
	overDeaths(t, "down", func(s *scene, kill func() bool) {
		before := s.view()
		s.runs("up")
		if kill() {
			s.runs("down")
		}
		s.mustBe(before)
	})
}

// slow has the next run of a command wait. begun returns when it has begun, and goOn lets it go on.
func (s *scene) slow(r ruin) (begun, goOn func()) {
	s.t.Helper()
	for _, fifo := range []string{begunFile, goFile} {
		s.must(unix.Mkfifo(s.path(fifo), 0o600))
	}
	r.Times, r.Slow = 1, true
	s.goesWrong(r)
	return func() {
		_, err := os.ReadFile(s.path(begunFile))
		s.must(err)
	}, func() { s.must(os.WriteFile(s.path(goFile), []byte("go"), 0)) }
}

// A run of xl is not the program: it goes on when that is killed, and the next run waits for it.
func TestTheNextRunWaitsForAnXlThatWasLeft(t *testing.T) {
	s := newScene(t)
	before := s.view()
	begun, goOn := s.slow(ruin{Command: "network-attach", KillAt: "before"})
	// up's pipe would be held open by the xl that it leaves.
	up := s.command("up")
	s.must(up.Start())
	begun()
	_ = up.Wait() // it was killed
	said, end := s.follow(s.command("down"))
	said.await("wait for another run, or an xl that one has left")
	goOn()
	if r := end(); r.code != 0 || r.complaint != "" {
		t.Errorf("down: exit code %d, said %q", r.code, r.complaint)
	}
	s.mustBe(before)
}

// Ctrl-C is for all programs in the terminal. An xl that is at work is not ended by it.
func TestASignalDoesNotEndXl(t *testing.T) {
	s := newScene(t)
	before := s.view()
	begun, goOn := s.slow(ruin{Command: "network-attach"})
	cmd := s.command("up")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	_, end := s.follow(cmd)
	begun()
	s.must(unix.Kill(-cmd.Process.Pid, unix.SIGINT))
	goOn()
	if r := end(); r.code != 1 || strings.Contains(r.complaint, "xl network-attach") || !strings.HasSuffix(r.complaint, "; all was taken back\n") {
		t.Errorf("exit code %d, said %q", r.code, r.complaint)
	}
	s.mustBe(before)
}

func TestKilledWhileXlIsAtWork(t *testing.T) {
	for _, tc := range []struct {
		command, killed string
	}{
		{"pause", "up"}, {"network-attach", "up"}, {"network-detach", "down"}, {"unpause", "down"},
	} {
		for _, at := range []string{"before", "after"} {
			t.Run(tc.command+" "+at, func(t *testing.T) {
				s := newScene(t)
				s.guests(domain0, sysNet, work)
				before := s.view()
				if tc.killed == "down" {
					s.runs("up")
				}
				s.goesWrong(ruin{Command: tc.command, Times: 1, KillAt: at})
				if r := s.finish(s.command(tc.killed)); r.code == 0 {
					t.Errorf("%s was not killed: %q", tc.killed, r)
				}
				s.runs("down")
				s.mustBe(before)
			})
		}
	}
}
