package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

const (
	resolvedName = "org.freedesktop.resolve1"
	resolvedPath = godbus.ObjectPath("/org/freedesktop/resolve1")
	resolvedUser = "systemd-resolve"
	resolvedID   = 991 // free in the lab: its /etc/passwd is private
)

// FindResolved returns the path of systemd-resolved: the machine's own, or the one that `make deps` unpacked
// below dir where installing the package would take over the machine's resolv.conf.
func FindResolved(dir string) (string, error) {
	const program = "lib/systemd/systemd-resolved"
	for _, root := range []string{"/usr", "/", filepath.Join(dir, "bin/resolved/usr"), filepath.Join(dir, "bin/resolved")} {
		path := filepath.Join(root, program)
		if _, err := os.Stat(path); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", errors.New("lab: no systemd-resolved: run `make deps` as root, which brings it")
}

// StartResolved starts a real systemd-resolved in the netvm and waits until it is on the bus.
func (v *NetVM) StartResolved(ctx context.Context, program string) error {
	if err := v.addResolvedUser(); err != nil {
		return fmt.Errorf("netvm: the user of systemd-resolved: %w", err)
	}
	owned, err := v.awaitName(ctx, resolvedName)
	if err != nil {
		return err
	}
	cmd := exec.Command(program)
	cmd.Env = v.Environ()
	if v.resolved, err = v.startDaemon(ctx, "systemd-resolved", "", cmd); err != nil {
		return err
	}
	return v.resolved.await(ctx, owned, "take its name on the bus")
}

// StopResolved ends systemd-resolved.
func (v *NetVM) StopResolved(ctx context.Context) error { return v.resolved.Stop(ctx, syscall.SIGTERM) }

// addResolvedUser makes the user that the package would have made, and the folder that it owns.
func (v *NetVM) addResolvedUser() error {
	for path, line := range map[string]string{
		"/etc/passwd": fmt.Sprintf("%s:x:%d:%d::/:/bin/false\n", resolvedUser, resolvedID, resolvedID),
		"/etc/group":  fmt.Sprintf("%s:x:%d:\n", resolvedUser, resolvedID),
	} {
		text, err := v.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), resolvedUser+":") {
			continue
		}
		if err := v.ReplaceFile(path, append(text, line...)); err != nil {
			return err
		}
	}
	return v.Do(func() error {
		const dir = "/run/systemd/resolve"
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		text, err := os.ReadFile("/etc/passwd")
		if err != nil {
			return err
		}
		var uid, gid int
		for _, line := range strings.Split(string(text), "\n") {
			if f := strings.Split(line, ":"); len(f) > 3 && f[0] == resolvedUser {
				if _, err := fmt.Sscan(f[2]+" "+f[3], &uid, &gid); err != nil {
					return err
				}
			}
		}
		return os.Chown(dir, uid, gid)
	})
}

// SetLinkDNS tells systemd-resolved the servers of one device, as NetworkManager or a VPN's script would.
func (v *NetVM) SetLinkDNS(ctx context.Context, device string, servers ...netip.Addr) error {
	link, err := v.links.LinkByName(device)
	if err != nil {
		return fmt.Errorf("netvm: find link %s: %w", device, err)
	}
	type server struct {
		Family  int32
		Address []byte
	}
	list := make([]server, len(servers))
	for i, s := range servers {
		list[i] = server{unix.AF_INET, s.AsSlice()}
		if s.Is6() {
			list[i].Family = unix.AF_INET6
		}
	}
	conn, err := v.Bus()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // every call was answered
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	call := conn.Object(resolvedName, resolvedPath).CallWithContext(ctx, resolvedName+".Manager.SetLinkDNS", 0,
		int32(link.Attrs().Index), list)
	if call.Err != nil {
		return fmt.Errorf("systemd-resolved: set the servers of %s: %w", device, call.Err)
	}
	return nil
}
