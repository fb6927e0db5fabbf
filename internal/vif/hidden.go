package vif

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

// An AppVM with a hidden address sees itself under another one than the netvm does. The card's device moves into a
// network namespace of its own, where NAT stands between the two; a pair of devices leads out of it, whose outer end
// takes the vif's name. Everything else in the netvm goes on as if that were the card.
const (
	// hidingOuter is the end in the namespace of the pair that leads out of it. Where it is, the other end has the
	// vif's name in the netvm.
	hidingOuter = "out"
	// netnsDir is where ip-netns(8) looks for namespaces.
	netnsDir = "/run/netns"
)

// hides tells whether the AppVM sees itself under another address.
func (s Spec) hides() bool { return s.Visible.IsValid() }

// namespaceOf is the name of a vif's own namespace, the same as with Qubes' scripts.
func namespaceOf(name string) string { return name + "-nat" }

// hide puts the vif behind its own namespace and returns the device that stands for it now. If it is there already, as
// known says, it stays as it is.
func (s *Setup) hide(ctx context.Context, spec Spec, device netlink.Link, done bool) (netlink.Link, error) {
	hidden, err := isHidden(spec.Name)
	if err != nil {
		return nil, err
	}
	if done && hidden {
		return device, nil
	}
	if err := s.reveal(spec.Name); err != nil {
		return nil, err
	}
	card, err := s.kernel.awaitLink(ctx, spec.Name)
	if err != nil {
		return nil, err
	}
	inside, err := newNamespace(namespaceOf(spec.Name))
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	h := netvm.Hiding{
		Inner: spec.Name, Outer: hidingOuter, Real: spec.firstIPv4(), Visible: spec.Visible,
		Gateway: spec.Gateway, VisibleGateway: spec.VisibleGateway,
	}
	if err := s.Hide(ctx, int(inside), h); err != nil {
		return nil, err
	}
	if err := s.kernel.LinkSetNsFd(card, int(inside)); err != nil {
		return nil, fmt.Errorf("move the device into namespace %s: %w", namespaceOf(spec.Name), err)
	}
	if err := s.leadOut(spec, inside); err != nil {
		return nil, err
	}
	if err := configureInside(spec, h, inside); err != nil {
		return nil, err
	}
	return s.kernel.LinkByName(spec.Name)
}

// isHidden tells whether the netvm's device of that name is the outer end of a vif that is hidden.
func isHidden(name string) (bool, error) {
	inside, err := netns.GetFromPath(filepath.Join(netnsDir, namespaceOf(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("namespace %s: %w", namespaceOf(name), err)
	}
	defer inside.Close()
	there := false
	err = within(inside, func() error {
		k, err := openKernel()
		if err != nil {
			return err
		}
		defer k.Close()
		for _, device := range []string{name, hidingOuter} {
			l, err := k.link(device)
			if err != nil {
				return err
			}
			if l == nil {
				return nil
			}
		}
		there = true
		return nil
	})
	return there, err
}

// leadOut makes the pair of devices: the inner end has the Ethernet address of the AppVM, for which the netvm's table
// of neighbours takes it, and the outer end the name that the card has just left.
func (s *Setup) leadOut(spec Spec, inside netns.NsHandle) error {
	mac, err := net.ParseMAC(spec.MAC)
	if err != nil {
		return err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.HardwareAddr = spec.Name, backendMAC
	pair := &netlink.Veth{LinkAttrs: attributes, PeerName: hidingOuter, PeerHardwareAddr: mac, PeerNamespace: netlink.NsFd(int(inside))}
	if err := s.kernel.LinkAdd(pair); err != nil {
		return fmt.Errorf("add a pair of devices into namespace %s: %w", namespaceOf(spec.Name), err)
	}
	return nil
}

// configureInside makes the namespace a router between the AppVM and the netvm, of IPv4 alone.
func configureInside(spec Spec, h netvm.Hiding, inside netns.NsHandle) error {
	err := within(inside, func() error {
		for _, one := range []setting{
			{"ipv4/ip_forward", "1"}, {"ipv4/conf/all/send_redirects", "0"}, {"ipv4/conf/all/accept_redirects", "0"},
			{"ipv6/conf/all/disable_ipv6", "1"}, {"ipv6/conf/default/disable_ipv6", "1"},
		} {
			if err := writeSetting(one.path, one.value); err != nil {
				return err
			}
		}
		for _, name := range []string{h.Inner, h.Outer} {
			if err := writeSettings(Spec{Vif: netvm.Vif{Name: name}, Harden: spec.Harden}); err != nil {
				return err
			}
		}
		k, err := openKernel()
		if err != nil {
			return err
		}
		defer k.Close()
		return k.configureHiding(spec, h)
	})
	if err != nil {
		return fmt.Errorf("namespace %s: %w", namespaceOf(spec.Name), err)
	}
	return nil
}

func (k *kernel) configureHiding(spec Spec, h netvm.Hiding) error {
	mac, err := net.ParseMAC(spec.MAC)
	if err != nil {
		return err
	}
	for _, side := range []struct {
		device     string
		address    netip.Addr // on it
		other      netip.Addr // whom it leads to
		otherMAC   net.HardwareAddr
		everything bool
	}{
		{h.Inner, h.VisibleGateway, h.Visible, mac, false},
		{h.Outer, h.Real, h.Gateway, backendMAC, true},
	} {
		l, err := k.LinkByName(side.device)
		if err != nil {
			return fmt.Errorf("find device %s: %w", side.device, err)
		}
		if err := k.neighbours(l, true, []netip.Addr{side.other}, side.otherMAC); err != nil {
			return err
		}
		if err := k.addresses(l, true, []netip.Addr{side.address}); err != nil {
			return err
		}
		if err := k.LinkSetUp(l); err != nil {
			return fmt.Errorf("set device %s up: %w", side.device, err)
		}
		if err := k.routes(l, true, []netip.Addr{side.other}, 0); err != nil {
			return err
		}
		if !side.everything {
			continue
		}
		route := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: side.other.AsSlice()}
		route.SetFlag(netlink.FLAG_ONLINK)
		if err := k.RouteAdd(route); err != nil {
			return fmt.Errorf("add the default route over device %s: %w", side.device, err)
		}
	}
	return nil
}

// reveal takes the vif's namespace away, as far as there is one, and brings back the card's device if it still lives.
func (s *Setup) reveal(name string) error {
	path := filepath.Join(netnsDir, namespaceOf(name))
	inside, err := netns.GetFromPath(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("namespace %s: %w", path, err)
	}
	defer inside.Close()
	here, err := netns.Get()
	if err != nil {
		return fmt.Errorf("open the own network namespace: %w", err)
	}
	defer here.Close()
	err = within(inside, func() error {
		k, err := openKernel()
		if err != nil {
			return err
		}
		defer k.Close()
		return k.vacate(name, here)
	})
	// A file to which no namespace was bound, as its maker was killed just then, cannot be entered: EINVAL.
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("namespace %s: %w", path, err)
	}
	return deleteNamespace(path)
}

// vacate takes the pair of devices away, and moves the card's device to where the vif's name is free then.
func (k *kernel) vacate(name string, there netns.NsHandle) error {
	outer, err := k.link(hidingOuter)
	if err != nil {
		return err
	}
	if outer != nil {
		if err := k.LinkDel(outer); err != nil {
			return fmt.Errorf("delete device %s: %w", hidingOuter, err)
		}
	}
	card, err := k.link(name)
	if card == nil || err != nil {
		return err
	}
	if err := k.LinkSetDown(card); err != nil {
		return fmt.Errorf("set the device down: %w", err)
	}
	if err := k.LinkSetNsFd(card, int(there)); err != nil {
		return fmt.Errorf("move the device out: %w", err)
	}
	return nil
}

// newNamespace makes a named network namespace, as ip-netns(8) does.
func newNamespace(name string) (netns.NsHandle, error) {
	made := netns.None()
	err := onThread(func() (err error) {
		made, err = netns.NewNamed(name)
		return err
	})
	if err != nil {
		return made, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	return made, nil
}

// deleteNamespace removes the name; the namespace goes with its last device and program.
func deleteNamespace(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("namespace: %w", err)
	}
	return nil
}

// within runs f in a network namespace.
func within(inside netns.NsHandle, f func() error) error {
	return onThread(func() error {
		if err := netns.Set(inside); err != nil {
			return err
		}
		return f()
	})
}

// onThread runs f on a thread of its own, which ends with f: whatever namespace f left it in, nobody else meets it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- f()
	}()
	return <-done
}

// firstIPv4 is the address that is hidden.
func (s Spec) firstIPv4() netip.Addr {
	for _, a := range s.Addresses {
		if a.Is4() {
			return a
		}
	}
	return netip.Addr{}
}
