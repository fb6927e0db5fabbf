// Package desktop is a private X desktop for the tray's tests and pictures, made of real parts: an X server (Xvfb), a
// session bus, and panels that real people have (trayer, tint2). There is no StatusNotifierWatcher, as in a Qubes netvm.
// What a person does is done by xdotool, and what a person sees is read back from the screen. Everything of it is on the
// lab's own file system and ends with the lab: a program calls lab.Enter first.
package desktop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"netvmd/internal/lab"
)

const (
	// patience bounds each wait for something to be seen on the screen, on a busy machine.
	patience = 15 * time.Second
	// glance is how often the screen is looked at meanwhile.
	glance = 10 * time.Millisecond
	// toolTimeout bounds a program that does one thing; tesseract takes seconds on a busy machine.
	toolTimeout = 20 * time.Second
)

// Options of a desktop. The zero value is root's, with a session bus.
type Options struct {
	User  lab.User // whose desktop it is; its programs run as this user. The zero User = root
	NoBus bool     // there is no session bus
}

// Desktop is one X screen with what belongs to it.
type Desktop struct {
	Screen *Screen
	Bus    *lab.OpenBus // the session bus; nil without one

	user     lab.User
	dir      string
	server   *lab.Process
	programs []*lab.Process
}

// New starts a desktop, without a panel. On an error what was started is ended again.
func New(ctx context.Context, o Options) (*Desktop, error) {
	if o.User.Name == "" {
		o.User = lab.RootUser
	}
	dir, err := os.MkdirTemp(lab.Root, "desktop")
	if err != nil {
		return nil, fmt.Errorf("desktop: %w; was lab.Enter called?", err)
	}
	d := &Desktop{user: o.User, dir: dir}
	if err := d.build(ctx, o); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Desktop) build(ctx context.Context, o Options) error {
	if err := os.Chmod(d.dir, 0o755); err != nil {
		return fmt.Errorf("desktop: %w", err)
	}
	for _, name := range []string{"home", "runtime", "tmp", "bin"} {
		if err := errors.Join(os.Mkdir(d.path(name), 0o700), os.Chown(d.path(name), int(o.User.UID), int(o.User.GID))); err != nil {
			return fmt.Errorf("desktop: %w", err)
		}
	}
	if err := d.startX(ctx); err != nil {
		return err
	}
	if o.NoBus {
		return nil
	}
	var err error
	d.Bus, err = lab.StartOpenBus(ctx, d.label("session-bus"), d.path("bus"))
	return err
}

// path is that of a file of the desktop.
func (d *Desktop) path(name string) string { return filepath.Join(d.dir, name) }

// label names a program of this desktop, for its log.
func (d *Desktop) label(name string) string { return name + "-" + filepath.Base(d.dir) }

// Home is the user's folder: HOME.
func (d *Desktop) Home() string { return d.path("home") }

// Runtime is the session's folder: XDG_RUNTIME_DIR.
func (d *Desktop) Runtime() string { return d.path("runtime") }

// Temporary is TMPDIR.
func (d *Desktop) Temporary() string { return d.path("tmp") }

// Environ is what programs of the desktop find in their environment.
func (d *Desktop) Environ() []string {
	bus := "unix:path=" + d.path("no-bus") // where nobody listens
	if d.Bus != nil {
		bus = d.Bus.Address()
	}
	env := []string{
		"PATH=" + d.path("bin") + ":" + os.Getenv("PATH"), "LANG=C.UTF-8", "USER=" + d.user.Name, "HOME=" + d.Home(),
		"XDG_RUNTIME_DIR=" + d.Runtime(), "TMPDIR=" + d.Temporary(), "DBUS_SESSION_BUS_ADDRESS=" + bus,
		"NO_AT_BRIDGE=1", // nobody reads the screen aloud here
	}
	if d.Screen != nil {
		env = append(env, "DISPLAY="+d.Screen.Display)
	}
	for _, name := range []string{"DBUS_SYSTEM_BUS_ADDRESS", "GORACE", "TZ"} {
		if value, set := os.LookupEnv(name); set {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// Command prepares a program of the desktop's user. A variable of extra, "NAME=value", takes the place of the desktop's.
func (d *Desktop) Command(ctx context.Context, extra []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = d.Home()
	cmd.Env = append(d.Environ(), extra...) // of two with one name the last counts: os/exec
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL,
		Credential: &syscall.Credential{Uid: d.user.UID, Gid: d.user.GID}}
	return cmd
}

// Start starts a program of the desktop's user, which ends with the desktop at the latest.
func (d *Desktop) Start(ctx context.Context, extra []string, name string, args ...string) (*lab.Process, error) {
	p, err := lab.StartDaemon(ctx, d.label(filepath.Base(name)), "", d.Command(context.WithoutCancel(ctx), extra, name, args...))
	if err == nil {
		d.programs = append(d.programs, p)
	}
	return p, err
}

// StandIn puts a shell script in the place of a program, first on the PATH of the desktop.
func (d *Desktop) StandIn(name, script string) error {
	path := filepath.Join(d.path("bin"), name)
	if err := errors.Join(os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o600), os.Chmod(path, 0o755)); err != nil {
		return fmt.Errorf("desktop: a stand-in for %s: %w", name, err)
	}
	return os.Chown(path, int(d.user.UID), int(d.user.GID))
}

// tool runs a program of the desktop to its end and returns what it printed.
func (d *Desktop) tool(ctx context.Context, input []byte, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	cmd := d.Command(ctx, nil, name, args...)
	var out, complaint strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if input != nil {
		cmd.Stdin = strings.NewReader(string(input))
	}
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("desktop: %s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

// Close ends everything that was started here, the newest first.
func (d *Desktop) Close() error {
	ctx := context.Background()
	var errs []error
	for i := len(d.programs) - 1; i >= 0; i-- {
		errs = append(errs, d.programs[i].Stop(ctx, syscall.SIGKILL))
	}
	if d.Bus != nil {
		errs = append(errs, d.Bus.Stop(ctx))
	}
	if d.Screen != nil {
		d.Screen.close()
	}
	errs = append(errs, d.server.Stop(ctx, syscall.SIGKILL), os.RemoveAll(d.dir))
	return errors.Join(errs...)
}

// await looks until see says that it is there.
func await[T any](ctx context.Context, what string, see func() (T, bool, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticks := time.NewTicker(glance)
	defer ticks.Stop()
	for {
		v, is, err := see()
		if is || err != nil {
			return v, err
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return v, fmt.Errorf("desktop: %s is not to be seen: %w", what, ctx.Err())
		}
	}
}
