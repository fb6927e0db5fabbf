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

// StartResolved starts a real systemd-resolved in the domain and waits until it is on the bus.
func (d *Domain) StartResolved(ctx context.Context, program string) error {
	if err := d.addResolvedUser(); err != nil {
		return fmt.Errorf("%s: the user of systemd-resolved: %w", d.Name, err)
	}
	owned, err := d.awaitName(ctx, resolvedName)
	if err != nil {
		return err
	}
	cmd := exec.Command(program)
	cmd.Env = d.Environ()
	if d.resolved, err = d.startDaemon(ctx, "systemd-resolved", "", cmd); err != nil {
		return err
	}
	return d.resolved.await(ctx, owned, "take its name on the bus")
}

// StopResolved ends systemd-resolved.
func (d *Domain) StopResolved(ctx context.Context) error {
	return d.resolved.Stop(ctx, syscall.SIGTERM)
}

// addResolvedUser makes the user that the package would have made, and the folder that it owns.
func (d *Domain) addResolvedUser() error {
	for path, line := range map[string]string{
		"/etc/passwd": fmt.Sprintf("%s:x:%d:%d::/:/bin/false\n", resolvedUser, resolvedID, resolvedID),
		"/etc/group":  fmt.Sprintf("%s:x:%d:\n", resolvedUser, resolvedID),
	} {
		text, err := d.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), resolvedUser+":") {
			continue
		}
		if err := d.ReplaceFile(path, append(text, line...)); err != nil {
			return err
		}
	}
	return d.Do(func() error {
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
func (d *Domain) SetLinkDNS(ctx context.Context, device string, servers ...netip.Addr) error {
	link, err := d.links.LinkByName(device)
	if err != nil {
		return fmt.Errorf("%s: find link %s: %w", d.Name, device, err)
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
	conn, err := d.Bus()
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
