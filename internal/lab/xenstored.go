package lab

import (
	"bytes"
	"context"
	_ "embed" // the shim's source
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

//go:embed xenstored/shim.c
var xenstoredShim []byte

// xenstoredPackages hold Debian's xenstored and the libraries that it loads. The shim knows this version's interfaces.
var xenstoredPackages = []string{"xen-utils-4.17", "libxenmisc4.17", "libxencall1", "libxendevicemodel1", "libxenevtchn1",
	"libxenforeignmemory1", "libxengnttab1", "libxentoolcore1", "libxentoollog1"}

// ErrNoXenstored says why a machine cannot have the real xenstored: its distribution is not Debian 12.
var ErrNoXenstored = errors.New("the real xenstored needs Debian 12 with its package xen-utils-4.17")

// Xenstored is a real C xenstored, which needs no Xen here: a shim stands for the hypervisor. Its only domain is dom0,
// so that nobody is refused anything.
type Xenstored struct {
	Socket string

	cmd    *exec.Cmd
	output *bytes.Buffer
	ended  chan struct{}
}

// StartXenstored starts xenstored with an empty store in a folder, whose path must be short enough for a socket. The
// program is fetched once and kept in the user's cache folder.
func StartXenstored(ctx context.Context, dir string) (*Xenstored, error) {
	root, err := fetchXenstored(ctx)
	if err != nil {
		return nil, fmt.Errorf("xenstored: %w", err)
	}
	shim := filepath.Join(dir, "shim.so")
	if err := compileShim(ctx, shim); err != nil {
		return nil, fmt.Errorf("xenstored: %w", err)
	}
	libraries, err := filepath.Glob(root + "/usr/lib/*/libxenctrl.so.4.17")
	if err != nil || len(libraries) != 1 {
		return nil, fmt.Errorf("xenstored: the packages in %s have %d times libxenctrl.so.4.17, %w", root, len(libraries), errors.Join(err, fs.ErrNotExist))
	}
	x := &Xenstored{Socket: filepath.Join(dir, "socket"), output: new(bytes.Buffer), ended: make(chan struct{})}
	x.cmd = exec.CommandContext(context.WithoutCancel(ctx), root+"/usr/lib/xen-4.17/bin/xenstored", "--no-fork")
	x.cmd.Env = append(os.Environ(), "XENSTORED_RUNDIR="+dir, "LD_LIBRARY_PATH="+filepath.Dir(libraries[0]), "LD_PRELOAD="+shim)
	x.cmd.Stdout, x.cmd.Stderr = x.output, x.output
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := x.start(); err != nil {
		return nil, fmt.Errorf("xenstored: %w", err)
	}
	if _, err := os.Stat(x.Socket); err != nil {
		closing := x.Close() // after which its output is whole
		return nil, errors.Join(fmt.Errorf("xenstored has no socket: %w; it said: %s", err, x.output), closing)
	}
	return x, nil
}

// start returns when the program's socket listens, or the program has ended.
func (x *Xenstored) start() error {
	ready, notify, err := os.Pipe()
	if err != nil {
		return err
	}
	x.cmd.ExtraFiles = []*os.File{notify} // becomes READY_FD
	started := make(chan error)
	go func() {
		// Pdeathsig is about the thread that has started it (prctl(2)), which therefore stays with it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(x.ended)
		err := x.cmd.Start()
		started <- errors.Join(err, notify.Close())
		if err == nil {
			_ = x.cmd.Wait() // says that it was killed
		}
	}()
	if err := <-started; err != nil {
		return errors.Join(err, ready.Close())
	}
	_, err = io.Copy(io.Discard, ready) // to the pipe's end
	return errors.Join(err, ready.Close())
}

// Close kills it.
func (x *Xenstored) Close() error {
	if err := x.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("xenstored: %w", err)
	}
	<-x.ended
	return nil
}

func compileShim(ctx context.Context, to string) error {
	compile := exec.CommandContext(ctx, "gcc", "-O1", "-shared", "-fPIC", "-x", "c", "-o", to, "-", "-ldl")
	compile.Stdin = bytes.NewReader(xenstoredShim)
	if out, err := compile.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the shim: %w: %s", err, out)
	}
	return nil
}

// fetchXenstored returns a folder with the unpacked packages, from the cache or fetched with apt. Nothing is
// installed.
func fetchXenstored(ctx context.Context) (string, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "", fmt.Errorf("%w (%w)", ErrNoXenstored, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	root := filepath.Join(cache, "netvmd", "xenstored-4.17")
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(root), "fetch")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	if err := unpackPackages(ctx, fresh, xenstoredPackages); err != nil {
		return "", err
	}
	if err := os.Rename(filepath.Join(fresh, "root"), root); err != nil && !errors.Is(err, fs.ErrExist) { // another test was quicker
		return "", err
	}
	return root, nil
}

// unpackPackages downloads packages into a folder and unpacks them all into its subfolder root.
func unpackPackages(ctx context.Context, dir string, packages []string) error {
	offered, err := exec.CommandContext(ctx, "apt-cache", "show", "--no-all-versions", packages[0]).Output()
	if err != nil || len(offered) == 0 {
		return fmt.Errorf("%w, which apt does not offer: is that this machine's release, and was apt-get update run?", ErrNoXenstored)
	}
	// As root, apt would fetch as a user who may not write here.
	fetch := append([]string{"apt-get", "download", "-q", "-o", "APT::Sandbox::User=root"}, packages...)
	if err := runIn(ctx, dir, fetch...); err != nil {
		// A version that apt knows may be gone from the archive: its list is too old then.
		if updating := runIn(ctx, dir, "apt-get", "update", "-q"); updating != nil {
			return errors.Join(err, updating)
		}
		if err := runIn(ctx, dir, fetch...); err != nil {
			return err
		}
	}
	debs, err := filepath.Glob(dir + "/*.deb")
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if err := runIn(ctx, dir, "dpkg-deb", "-x", deb, "root"); err != nil {
			return err
		}
	}
	return nil
}

// runIn runs a program to its end in a folder; what it prints is of interest only when it fails.
func runIn(ctx context.Context, dir string, command ...string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
	}
	return nil
}
