package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// User is somebody who runs programs in the domain.
type User struct {
	Name     string
	UID, GID uint32
}

// Somebody with all rights, and somebody without any. The latter's numbers are the same in every distribution (the
// kernel's overflowuid).
var (
	RootUser = User{"root", 0, 0}
	Nobody   = User{"nobody", 65534, 65534}
)

// CommandAs prepares a program to be run in the domain by a user, with the domain's bus as its system bus and nothing else of
// this program's environment.
func (d *Domain) CommandAs(ctx context.Context, u User, name string, args ...string) *exec.Cmd {
	cmd := d.Host.Command(ctx, name, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "USER=" + u.Name, "LANG=C",
		"DBUS_SYSTEM_BUS_ADDRESS=" + d.bus, raceVariable + "=" + os.Getenv(raceVariable)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.UID, Gid: u.GID}}
	return cmd
}

// RunAs is Run by a user who may be without rights.
func (d *Domain) RunAs(ctx context.Context, u User, name string, args ...string) (string, error) {
	return d.RunCommand(d.CommandAs(ctx, u, name, args...))
}

// BusAs opens a connection to the domain's bus as a user, from this very process; signals come in order. Close it.
func (d *Domain) BusAs(u User) (*godbus.Conn, error) {
	socket, err := d.dialAs(u)
	if err != nil {
		return nil, err
	}
	conn, err := godbus.NewConn(socket, godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", d.Name, err), socket.Close())
	}
	if err = conn.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(int(u.UID)))}); err == nil {
		err = conn.Hello()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: join the bus as %s: %w", d.Name, u.Name, err), conn.Close())
	}
	return conn, nil
}

// dialAs connects to the bus as a user: the kernel tells the other side what the connecting thread's effective user was
// at that moment (unix(7), SO_PEERCRED).
func (d *Domain) dialAs(u User) (socket net.Conn, err error) {
	runtime.LockOSThread()
	if err := effective(u); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("%s: be %s: %w", d.Name, u.Name, err)
	}
	socket, err = net.Dial("unix", d.busSocket())
	if back := effective(RootUser); back != nil {
		// The thread stays locked, so it ends with this goroutine instead of doing other work without rights.
		return nil, errors.Join(fmt.Errorf("%s: be root again: %w", d.Name, back), err)
	}
	runtime.UnlockOSThread()
	if err != nil {
		return nil, fmt.Errorf("%s: connect to the bus as %s: %w", d.Name, u.Name, err)
	}
	return socket, nil
}

// effective changes the effective user and group of the calling thread alone: the C library's functions of these names,
// and Go's, change all threads, the kernel's calls do not (nptl(7)). The user goes last when rights are given up, and
// comes first when they are taken back.
func effective(u User) error {
	const keep = ^uintptr(0)
	group := func() syscall.Errno {
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, keep, uintptr(u.GID), keep)
		return errno
	}
	user := func() syscall.Errno {
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(u.UID), keep)
		return errno
	}
	steps := []func() syscall.Errno{group, user}
	if u.UID == 0 {
		steps = []func() syscall.Errno{user, group}
	}
	for _, step := range steps {
		if errno := step(); errno != 0 {
			return errno
		}
	}
	return nil
}
