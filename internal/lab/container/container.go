// Package container boots a Linux with systemd as its first process, by systemd-nspawn: units, activation, packages and
// reboots are tested for real in it. It has namespaces and control groups of its own, and ends with the program that
// started it. The machine's own systemd, should there be one, is not asked.
package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"netvmd/internal/lab/notify"
)

const (
	// bootTimeout is for all jobs of a boot; they take 3 s on a quiet machine.
	bootTimeout = 90 * time.Second
	// endTimeout is for systemd-nspawn to notice that its container is gone.
	endTimeout = 10 * time.Second
)

// Options say what is booted.
type Options struct {
	// Root is a folder with a whole system, which keeps what is written; "" = this machine's own /usr, and nothing else
	// but what systemd makes of an empty /etc and /var. That ends with the container.
	Root string
	// Usr are folders whose files are seen in /usr beside this machine's own and, of the same name, in their place; a later
	// one counts more. Only without Root.
	Usr   []string
	Binds []Bind
	// Begun, if there is one, is called as soon as the container's first process runs: with its number, as this machine
	// counts, by which devices can be moved into its network namespace, where there is nothing but the loopback.
	Begun func(first int) error
}

// Bind shows a file or folder of this machine in the container.
type Bind struct {
	From, To string
	ReadOnly bool
}

// Machine is a container that has booted.
type Machine struct {
	cmd     *exec.Cmd
	dir     string // with the socket for its notifications
	groups  controlGroups
	notices *notify.Listener
	said    bytes.Buffer // by the console, for an error; whole after ended
	ended   chan struct{}
	first   int // the container's first process, as this machine counts; 0 = there is none yet
}

// Boot returns when all that is started at boot has been started, or has failed: what systemctl is-system-running
// --wait waits for. On an error nothing of it runs any more, and the error has what the console said.
func Boot(ctx context.Context, o Options) (*Machine, error) {
	dir, err := os.MkdirTemp("", "container")
	if err != nil {
		return nil, fmt.Errorf("container: %w", err)
	}
	m := &Machine{dir: dir, ended: make(chan struct{})}
	if err := m.boot(ctx, o); err != nil {
		err = errors.Join(err, m.Close())
		return nil, fmt.Errorf("container: %w; the console: %s", err, m.said.String())
	}
	return m, nil
}

func (m *Machine) boot(ctx context.Context, o Options) error {
	var err error
	socket := filepath.Join(m.dir, "notify")
	if m.notices, err = notify.Listen(socket); err != nil {
		return err
	}
	name := filepath.Base(m.dir)
	if m.groups, err = newControlGroups(name); err != nil {
		return err
	}
	m.cmd = m.groups.command(append([]string{"systemd-nspawn", "--machine=" + name}, arguments(o)...)...)
	m.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	m.cmd.Stdout, m.cmd.Stderr = &m.said, &m.said
	m.cmd.WaitDelay = endTimeout
	// A program that is killed has systemd-nspawn shut the container down.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := m.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	if err := m.await(ctx, "X_NSPAWN_LEADER_PID"); err != nil {
		return err
	}
	if m.first, err = strconv.Atoi(m.notices.Value("X_NSPAWN_LEADER_PID")); err != nil {
		return fmt.Errorf("systemd-nspawn says which its first process is: %w", err)
	}
	if o.Begun != nil {
		if err := o.Begun(m.first); err != nil {
			return err
		}
	}
	return m.await(ctx, "READY")
}

// await waits until systemd-nspawn has said something about a key.
func (m *Machine) await(ctx context.Context, key string) error {
	select {
	case <-m.notices.Said(key):
		return nil
	case <-m.ended:
		return fmt.Errorf("systemd-nspawn ended: %s", m.cmd.ProcessState)
	case <-ctx.Done():
		return fmt.Errorf("not booted: %w", ctx.Err())
	}
}

// arguments are systemd-nspawn's, but for the machine's name.
func arguments(o Options) []string {
	args := []string{"--quiet", "--boot", "--register=no", "--keep-unit", "--notify-ready=yes", "--console=pipe",
		"--link-journal=no", "--resolv-conf=off", "--timezone=off", "--private-network"}
	if o.Root == "" {
		args = append(args, "--directory=/", "--volatile=yes")
		if len(o.Usr) > 0 {
			args = append(args, "--overlay-ro=/usr:"+strings.Join(o.Usr, ":")+":/usr")
		}
	} else {
		// What it writes need not outlive a power cut of this machine.
		args = append(args, "--directory="+o.Root, "--suppress-sync=yes")
	}
	for _, b := range o.Binds {
		option := "--bind="
		if b.ReadOnly {
			option = "--bind-ro="
		}
		args = append(args, option+b.From+":"+b.To)
	}
	return args
}

// start starts systemd-nspawn.
func (m *Machine) start() error {
	started := make(chan error)
	go func() {
		// Pdeathsig is about the thread that has started it (prctl(2)), which therefore stays with it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(m.ended)
		err := m.cmd.Start()
		started <- err
		if err == nil {
			_ = m.cmd.Wait() // ProcessState has it
		}
	}()
	return <-started
}

// Path is where this machine sees a file of the container, given by its absolute path there.
func (m *Machine) Path(file string) string {
	return filepath.Join("/proc", strconv.Itoa(m.first), "root", file)
}

// Bus is the address of the container's system bus.
func (m *Machine) Bus() string { return "unix:path=" + m.Path("/run/dbus/system_bus_socket") }

// Command prepares a program to be run in the container, as root and with nothing of this program's environment.
func (m *Machine) Command(ctx context.Context, args ...string) *exec.Cmd {
	enter := []string{"--target=" + strconv.Itoa(m.first), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root"}
	return cmd
}

// Run runs a program in the container and returns all that it printed, which is in the error too.
func (m *Machine) Run(ctx context.Context, args ...string) (string, error) {
	out, err := m.Command(ctx, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), err
}

// PowerOff shuts the container down in order and waits until it is gone.
func (m *Machine) PowerOff(ctx context.Context) error {
	// systemd takes this for `systemctl poweroff` (systemd(1)): SIGRTMIN, which is 34 for libc, and 4.
	const poweroff = syscall.Signal(34 + 4)
	if err := syscall.Kill(m.first, poweroff); err != nil {
		return fmt.Errorf("container: power off: %w", err)
	}
	select {
	case <-m.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("container: power off: %w", ctx.Err())
	}
}

// Close ends the container as a power cut does, if it still runs, and removes what it had outside of its root.
func (m *Machine) Close() error {
	var errs []error
	if m.cmd != nil && m.cmd.Process != nil {
		errs = append(errs, m.kill())
	}
	m.notices.Close()
	return errors.Join(append(errs, m.groups.remove(), os.RemoveAll(m.dir))...)
}

func (m *Machine) kill() error {
	select {
	case <-m.ended:
		return nil
	default:
	}
	// The kernel ends a container with its first process; the end of systemd-nspawn alone would not.
	victim := m.cmd.Process.Pid
	if m.first != 0 {
		victim = m.first
	}
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("container: kill: %w", err)
	}
	<-m.ended
	return nil
}

// Journal is the end of the container's journal, for a person: of all services, or of those named.
func (m *Machine) Journal(ctx context.Context, units ...string) string {
	args := []string{"journalctl", "--no-pager", "--lines=300", "--output=short-precise"}
	for _, u := range units {
		args = append(args, "--unit="+u)
	}
	text, err := m.Run(ctx, args...)
	if err != nil {
		return err.Error()
	}
	return text
}
