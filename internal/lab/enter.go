package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Root is the lab's own directory, on a tmpfs that nobody outside of the lab sees and that ends with it.
const Root = "/run/netvm-lab"

// stageVariable tells a re-executed program which part it plays. It is removed from the environment as soon
// as it is read.
const stageVariable = "NETVM_LAB_STAGE"

const (
	stageInit = "init" // PID 1 of the lab's PID namespace: prepares the mounts, passes signals on, reaps
	stageMain = "main" // the program itself
)

// raceVariable is read by every program with the race detector, go.dev/doc/articles/race_detector.
const raceVariable = "GORACE"

// raceOptions have these programs end at once, but for what is set already: they wait a second otherwise, for others to
// report races, and a test of the lab runs them by the hundred.
func raceOptions() string { return "atexit_sleep_ms=20 " + os.Getenv(raceVariable) }

// forwarded are the signals that somebody outside of the lab may send to the program that he sees.
var forwarded = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}

// Enter moves the program into PID, mount, network, UTS and IPC namespaces of its own, by running it again
// there with the same arguments; inside it returns nil and the program goes on. Outside it never returns
// on success: it passes signals on, waits, and exits with the same code (128 + n after signal n).
//
// Whatever was started or mounted inside ends with the program, because the kernel kills a PID namespace
// with its first process and drops the other namespaces with their last one; so it does even when the
// program outside is killed with SIGKILL. Call Enter first in main and in TestMain.
func Enter() error {
	stage := os.Getenv(stageVariable)
	if err := os.Unsetenv(stageVariable); err != nil {
		return fmt.Errorf("lab: unset %s: %w", stageVariable, err)
	}
	switch {
	case stage == stageInit && os.Getpid() == 1:
		code, err := runInit()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	case stage == stageMain && os.Getppid() == 1:
		return nil
	}
	code, err := runOutside()
	if err != nil {
		return err
	}
	os.Exit(code)
	return nil
}

// ownProgram is the path to run this program again by. In a chroot, what /proc/self/exe says of a program that was
// started through that very link is its path outside, so the link is for a program that has no path any more.
func ownProgram() string {
	path, err := os.Executable()
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "/proc/self/exe"
	}
	return path
}

// runOutside starts the init stage in new namespaces and waits for it.
func runOutside() (int, error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("lab: namespaces with a NetworkManager in them need root: run it with sudo")
	}
	// The parent-death signal is sent when the thread that forked ends, not the process: stay on it.
	runtime.LockOSThread()
	cmd := exec.Command(ownProgram())
	cmd.Args = os.Args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stageVariable+"="+stageInit)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("lab: start %s in new namespaces: %w", os.Args[0], err)
	}
	go func() {
		for s := range signals {
			// It can only fail when the process has just ended, which Wait tells.
			_ = cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("lab: wait for the lab's first process: %w", err)
	}
	return exitCode(cmd.ProcessState.Sys().(syscall.WaitStatus)), nil
}

// runInit is the lab's PID 1: it starts the program and adopts and reaps whatever loses its parent.
func runInit() (int, error) {
	if err := prepareMounts(); err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	main, err := syscall.ForkExec(ownProgram(), os.Args, &syscall.ProcAttr{
		Env:   append(os.Environ(), stageVariable+"="+stageMain, raceVariable+"="+raceOptions()),
		Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		return 0, fmt.Errorf("lab: start %s as the lab's program: %w", os.Args[0], err)
	}
	go func() {
		for s := range signals {
			// It can only fail when the program has just ended, which the loop below sees.
			_ = syscall.Kill(main, s.(syscall.Signal))
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("lab: wait for the lab's program: %w", err)
		case pid == main && (status.Exited() || status.Signaled()):
			return exitCode(status), nil
		}
	}
}

func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// prepareMounts gives the lab its own /proc, its own /run and a second name for the real /etc, none of
// which anybody outside sees.
func prepareMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("lab: make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("lab: mount a fresh /proc: %w", err)
	}
	if err := coverRun(); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := os.MkdirAll(realEtc, 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := unix.Mount("/etc", realEtc, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("lab: bind /etc to %s: %w", realEtc, err)
	}
	return nil
}

// sessions is where the people who are logged in have their folders, with their session's bus and their display's key.
const sessions = "/run/user"

// coverRun mounts a tmpfs on /run that has nothing of the machine's but the sessions, where there are any.
func coverRun() error {
	covered, err := os.Open(sessions)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount a tmpfs on /run: %w", err)
	}
	if covered == nil {
		return nil
	}
	if err := os.MkdirAll(sessions, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", covered.Fd()), sessions, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind the covered %s: %w", sessions, err)
	}
	return covered.Close()
}
