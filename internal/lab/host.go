package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	realEtc  = Root + "/etc"   // the machine's /etc, under another name
	hostsDir = Root + "/hosts" // handles of the namespaces of each host, for Exec
)

// Host is one machine of the lab: a network, mount and UTS namespace, with its own /etc/resolv.conf and its
// own read-only /sys. One thread lives in it for as long as the host does; programs are forked from that
// thread and so inherit its namespaces.
type Host struct {
	Name string

	work  chan func()
	ended chan struct{}
	netNS *os.File
	mntNS *os.File
	links *netlink.Handle
}

// newHost makes a machine with the loopback up and nothing else.
func newHost(name string) (*Host, error) {
	h := &Host{Name: name, work: make(chan func()), ended: make(chan struct{})}
	ready := make(chan error, 1)
	go h.live(ready)
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	return h, nil
}

// live is the host's thread. It is never unlocked, so the Go runtime ends it instead of lending a thread in
// foreign namespaces to others.
func (h *Host) live(ready chan<- error) {
	runtime.LockOSThread()
	defer close(h.ended)
	if err := h.settle(); err != nil {
		ready <- err
		return
	}
	ready <- nil
	for f := range h.work {
		f()
	}
}

// settle moves the calling thread into new namespaces and makes them habitable.
func (h *Host) settle() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("new namespaces: %w", err)
	}
	if err := unix.Sethostname([]byte(h.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	// NetworkManager takes a read-only /sys as the sign that there is no udev to wait for.
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if err := privateEtc(); err != nil {
		return err
	}
	var err error
	if h.netNS, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	if h.mntNS, err = os.Open("/proc/thread-self/ns/mnt"); err != nil {
		return err
	}
	if err := h.publish(); err != nil {
		return err
	}
	// Duplicate address detection holds an IPv6 address back for a second; nobody here can have it twice.
	for _, which := range []string{"all", "default"} {
		if err := writeSysctl("net/ipv6/conf/"+which+"/accept_dad", "0"); err != nil {
			return err
		}
	}
	if h.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	lo, err := h.links.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := h.links.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// privateEtc gives the calling thread's mount namespace an /etc of links to the real one, so that a file
// there can be replaced by rename, as NetworkManager and VPN scripts do with resolv.conf.
func privateEtc() error {
	if err := unix.Mount("tmpfs", "/etc", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount a tmpfs on /etc: %w", err)
	}
	entries, err := os.ReadDir(realEtc)
	if err != nil {
		return fmt.Errorf("read the real /etc: %w", err)
	}
	for _, e := range entries {
		if e.Name() == "resolv.conf" || e.Name() == "hostname" {
			continue
		}
		if err := os.Symlink(filepath.Join(realEtc, e.Name()), filepath.Join("/etc", e.Name())); err != nil {
			return fmt.Errorf("private /etc: %w", err)
		}
	}
	if err := os.WriteFile("/etc/resolv.conf", nil, 0o644); err != nil {
		return fmt.Errorf("private /etc: %w", err)
	}
	return nil
}

// publish leaves links to the namespaces where Exec, in another process of the lab, finds them.
func (h *Host) publish() error {
	if err := os.MkdirAll(hostsDir, 0o755); err != nil {
		return err
	}
	for kind, f := range map[string]*os.File{"net": h.netNS, "mnt": h.mntNS} {
		link := filepath.Join(hostsDir, h.Name+"."+kind)
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.Symlink(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()), link); err != nil {
			return err
		}
	}
	return nil
}

// Do runs f on the host's thread, in all its namespaces. f must be brief: the host does one thing at a time.
func (h *Host) Do(f func() error) error {
	done := make(chan error, 1)
	select {
	case h.work <- func() { done <- f() }:
		return <-done
	case <-h.ended:
		return fmt.Errorf("host %s: it is closed", h.Name)
	}
}

// Go runs f on a thread of its own in the host's network namespace and waits for it; f may block. The
// thread ends with f.
func (h *Host) Go(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		if err := unix.Setns(int(h.netNS.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("host %s: enter its network namespace: %w", h.Name, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Command prepares a program to be run in the host; start it with Start, or run it with Run or Output. It
// is killed when ctx ends.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, name, args...)
}

// Start starts the command in the host's namespaces.
func (h *Host) Start(cmd *exec.Cmd) error {
	if err := h.Do(cmd.Start); err != nil {
		return fmt.Errorf("%s: start %s: %w", h.Name, strings.Join(cmd.Args, " "), err)
	}
	return nil
}

// Run runs a program in the host to its end and returns what it printed, with standard error in the error.
func (h *Host) Run(ctx context.Context, name string, args ...string) (string, error) {
	return h.RunCommand(h.Command(ctx, name, args...))
}

// RunCommand is Run of a command that was prepared by Command.
func (h *Host) RunCommand(cmd *exec.Cmd) (string, error) {
	var out, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := h.Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%s: %s: %w: %s", h.Name, strings.Join(cmd.Args, " "), err,
			strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

// ReadFile reads a file as the host sees it.
func (h *Host) ReadFile(path string) (content []byte, err error) {
	err = h.Do(func() error {
		content, err = os.ReadFile(path)
		return err
	})
	return content, err
}

// ReplaceFile writes a file as the host sees it: a new one beside it, renamed over it.
func (h *Host) ReplaceFile(path string, content []byte) error {
	return h.Do(func() error {
		if err := os.WriteFile(path+".lab", content, 0o644); err != nil {
			return err
		}
		return os.Rename(path+".lab", path)
	})
}

func writeSysctl(key, value string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644); err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", key, value, err)
	}
	return nil
}

// close ends the host's thread. Its namespaces go when the last program in them has ended.
func (h *Host) close() {
	close(h.work)
	<-h.ended
	h.links.Close()
	// Namespace handles hold nothing that could fail to be written.
	_ = h.netNS.Close()
	_ = h.mntNS.Close()
}

// Exec replaces the calling program by another one inside a host of the lab that it runs in; in a domain it finds the
// domain's bus and configuration. It returns only on failure.
func Exec(host string, argv []string) error {
	runtime.LockOSThread()
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	netNS, err := os.Open(filepath.Join(hostsDir, host+".net"))
	if err != nil {
		return fmt.Errorf("no host %q here: %w", host, err)
	}
	mntNS, err := os.Open(filepath.Join(hostsDir, host+".mnt"))
	if err != nil {
		return fmt.Errorf("no host %q here: %w", host, err)
	}
	// A thread that shares its root and working directory with others may not change its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("host %s: unshare the working directory: %w", host, err)
	}
	if err := unix.Setns(int(netNS.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("host %s: enter its network namespace: %w", host, err)
	}
	if err := unix.Setns(int(mntNS.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("host %s: enter its mount namespace: %w", host, err)
	}
	if err := setDomainEnvironment(host); err != nil {
		return fmt.Errorf("host %s: %w", host, err)
	}
	if err := unix.Exec(path, argv, os.Environ()); err != nil {
		return fmt.Errorf("host %s: run %s: %w", host, path, err)
	}
	return nil
}
