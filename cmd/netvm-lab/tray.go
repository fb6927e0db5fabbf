package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"netvmd/internal/lab"
)

const trayAbout = `netvm-lab tray builds the lab, connects the netvm to the network "home", shows it by
netvm-tray in the panel of your own desktop, and opens a shell in the netvm. When
the shell ends, everything is gone. With sudo, netvm-tray runs as you, not as root.`

const trayHelp = `
%s Change something, and look at it:

  nmcli connection down home     no uplink: AppVM DNS is refused
  nmcli connection up office     another network
  nmcli connection up vpn        a VPN on top
` + shellHelp

// settling bounds how long is waited for a panel. netvm-tray needs some 300 ms for it.
const settling = 3 * time.Second

// errNoDesktop says why there is nowhere to show a tray.
var errNoDesktop = errors.New("DISPLAY names no screen of this machine: run it in a terminal on the desktop, " +
	"through a sudo that keeps DISPLAY and XAUTHORITY")

func tray(ctx context.Context, args []string) error {
	c, err := parse("tray", trayAbout, args, nil)
	if err != nil {
		return err
	}
	p, err := caller()
	if err != nil {
		return fmt.Errorf("tray: %w", err)
	}
	program := c.beside("netvm-tray")
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("tray: %w; build it with `make build`", err)
	}
	return c.explore(ctx, func(l *lab.Lab) (err error) {
		shown, text, err := p.showTray(ctx, l, program)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, shown.Stop(context.WithoutCancel(ctx), syscall.SIGTERM)) }()
		return openShell(l, fmt.Sprintf(trayHelp, text))
	})
}

// showTray starts netvm-tray on the person's desktop, and says whether a panel shows it.
func (p person) showTray(ctx context.Context, l *lab.Lab, program string) (*lab.Process, string, error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program)
	cmd.Env = append(l.NetVM.Environ(), p.environ...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.credential}
	shown, err := lab.StartDaemon(ctx, filepath.Base(program), "", cmd)
	if err != nil {
		return nil, "", err
	}
	waiting, enough := context.WithTimeout(ctx, settling)
	defer enough()
	switch _, err := shown.AwaitLog(waiting, 0, "docked"); {
	case err == nil:
		return shown, "The netvm's icon is in your panel.", nil
	case waiting.Err() == nil:
		return nil, "", fmt.Errorf("tray: %s has ended: %s", program, strings.TrimSpace(strings.Join(shown.Log(), "")))
	}
	return shown, "No panel has docked the netvm's icon, unless yours shows StatusNotifierItems. The log is " +
		lab.Root + "/log/netvm-tray.log.", nil
}

// person is who sits at the desktop, as far as a program needs it that is started there.
type person struct {
	credential *syscall.Credential
	environ    []string
}

// caller is who called sudo, or root.
func caller() (person, error) {
	// The lab has a network of its own: of X servers it reaches those with a socket in the file system.
	if display := os.Getenv("DISPLAY"); !strings.HasPrefix(strings.TrimPrefix(display, "unix"), ":") {
		return person{}, errNoDesktop
	}
	u, err := user.LookupId(cmp.Or(os.Getenv("SUDO_UID"), "0"))
	if err != nil {
		return person{}, fmt.Errorf("find who called sudo: %w", err)
	}
	rights, err := credential(u)
	if err != nil {
		return person{}, fmt.Errorf("find the rights of %s: %w", u.Username, err)
	}
	// sudo takes away where the session is; pam_systemd(8) says where it has its folder.
	session := filepath.Join("/run/user", u.Uid)
	return person{rights, []string{
		"HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username, "XDG_RUNTIME_DIR=" + session,
		"DBUS_SESSION_BUS_ADDRESS=" + cmp.Or(os.Getenv("DBUS_SESSION_BUS_ADDRESS"), "unix:path="+filepath.Join(session, "bus")),
	}}, nil
}

// credential is what the kernel calls a user and his groups.
func credential(u *user.User) (*syscall.Credential, error) {
	groups, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	var numbers []uint32
	for _, text := range append([]string{u.Uid, u.Gid}, groups...) {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, uint32(n))
	}
	return &syscall.Credential{Uid: numbers[0], Gid: numbers[1], Groups: numbers[2:]}, nil
}
