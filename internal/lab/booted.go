package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"netvmd/internal/lab/container"
)

// System is a folder with a whole system that a container can be booted from: what is written there goes with the lab,
// and the folder that it was made from stays as it is.
type System struct{ Dir string }

// NewSystem makes a system of a folder, such as a root that mmdebstrap made.
func NewSystem(name, from string) (System, error) {
	// All of it is memory, so that a package manager, which syncs every file, does not wait for a disk.
	dir := filepath.Join(Root, "systems", name)
	s := System{Dir: filepath.Join(dir, "root")}
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, d := range []string{s.Dir, upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return s, fmt.Errorf("lab: system %s: %w", name, err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", from, upper, work)
	if err := unix.Mount("overlay", s.Dir, "overlay", 0, options); err != nil {
		return s, fmt.Errorf("lab: system %s: mount an overlay on %s: %w", name, from, err)
	}
	return s, nil
}

// Boot boots a container as the netvm: in its network namespace, with its stores. Programs of this process find the
// container's system bus from then on, and Hotplug runs what is installed there.
func (v *NetVM) Boot(ctx context.Context, s System, binds ...container.Bind) error {
	binds = append(binds, container.Bind{From: xenStoreSocket, To: "/run/xenstored/socket"})
	if v.QubesDB != nil {
		binds = append(binds, container.Bind{From: qubesDBSocket, To: "/run/qubes/qubesdb.sock"})
	}
	var err error
	v.Machine, err = container.Boot(ctx, container.Options{Root: s.Dir, Network: filepath.Join(hostsDir, v.Name+".net"), Binds: binds})
	if err != nil {
		return fmt.Errorf("netvm: %w", err)
	}
	if err := os.Setenv("DBUS_SYSTEM_BUS_ADDRESS", v.Machine.Bus()); err != nil {
		return fmt.Errorf("netvm: %w", err)
	}
	return nil
}
