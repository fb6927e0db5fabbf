package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
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

// Boot boots a container as the netvm, see Domain.Boot: the cables lead there, programs of this process find the container's
// system bus, and Hotplug runs what is installed there.
func (v *NetVM) Boot(ctx context.Context, s System, binds ...container.Bind) error {
	var err error
	if v.Machine, err = v.Domain.Boot(ctx, s, binds...); err != nil {
		return err
	}
	if err := os.Setenv("DBUS_SYSTEM_BUS_ADDRESS", v.bus); err != nil {
		return fmt.Errorf("%s: %w", v.Name, err)
	}
	return nil
}

// Boot boots a container as the domain, with the stores that run. From then on the domain is what is in the container's
// network namespace, with all devices that it had, and its bus is the container's. Close the container before the lab.
func (d *Domain) Boot(ctx context.Context, s System, binds ...container.Bind) (*container.Machine, error) {
	if d.XenStore != nil {
		binds = append(binds, container.Bind{From: d.XenStoreSocket(), To: "/run/xenstored/socket"})
	}
	if d.QubesDB != nil {
		binds = append(binds, container.Bind{From: d.QubesDBSocket(), To: "/run/qubes/qubesdb.sock"})
	}
	m, err := container.Boot(ctx, container.Options{Root: s.Dir, Binds: binds, Begun: d.moveTo})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Name, err)
	}
	d.bus = m.Bus()
	return m, nil
}

// moveTo moves the host with its devices into the network namespace of a process.
func (h *Host) moveTo(process int) error {
	links, err := h.links.LinkList()
	if err != nil {
		return fmt.Errorf("%s: list links: %w", h.Name, err)
	}
	for _, link := range links {
		if link.Attrs().Flags&net.FlagLoopback != 0 {
			continue
		}
		if err := h.links.LinkSetNsPid(link, process); err != nil {
			return fmt.Errorf("%s: move link %s: %w", h.Name, link.Attrs().Name, err)
		}
	}
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", process))
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return h.Do(func() error {
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("%s: enter the network namespace of process %d: %w", h.Name, process, err)
		}
		h.links.Close()
		_ = h.netNS.Close() // as in close
		h.netNS = there
		if h.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("%s: netlink: %w", h.Name, err)
		}
		return h.publish()
	})
}
