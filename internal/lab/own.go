package lab

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netvmd/internal/rtnetlink"
)

// AwaitOwn waits until the kernel takes packets to every IPv6 address in the calling thread's network namespace for its
// own. It makes their local routes later than the addresses, in a worker (addrconf_dad_work), also where none waits for
// duplicate detection. Addresses of devices that do not carry are left out: they have no such route.
func AwaitOwn(ctx context.Context) error {
	updates, done := make(chan netlink.RouteUpdate), make(chan struct{})
	err := netlink.RouteSubscribeWithOptions(updates, done, netlink.RouteSubscribeOptions{ListExisting: true})
	if err != nil {
		return fmt.Errorf("follow the routes: %w", err)
	}
	defer func() {
		close(done)
		go func() {
			for range updates { // until the subscription's goroutine notices and closes it
				continue
			}
		}()
	}()
	waiting, err := carried()
	if err != nil {
		return err
	}
	for len(waiting) > 0 {
		select {
		case u, open := <-updates:
			if !open {
				return fmt.Errorf("%v: the kernel tells no more about routes", waiting)
			}
			if u.Route.Type != unix.RTN_LOCAL || u.Dst == nil {
				continue
			}
			local := own{u.LinkIndex, rtnetlink.Address(u.Dst.IP)}
			if u.Type == unix.RTM_NEWROUTE {
				delete(waiting, local)
				continue
			}
			// That of a device or an address that goes, or it comes again.
			now, err := carried()
			if err != nil {
				return err
			}
			if now[local] {
				waiting[local] = true
			}
		case <-ctx.Done():
			return fmt.Errorf("%v are not taken for this host's own: %w", waiting, ctx.Err())
		}
	}
	return nil
}

// own is an address of a device: another device may have the same.
type own struct {
	link    int
	address netip.Addr
}

// carried are the IPv6 addresses of devices that carry.
func carried() (map[own]bool, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the devices: %w", err)
	}
	out := map[own]bool{}
	for _, link := range links {
		// The operational state would say the same, but later: a worker makes that, too (linkwatch).
		if link.Attrs().RawFlags&unix.IFF_LOWER_UP == 0 {
			continue
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
		if err != nil {
			return nil, fmt.Errorf("%s: list the addresses: %w", link.Attrs().Name, err)
		}
		for _, a := range addrs {
			out[own{link.Attrs().Index, rtnetlink.Address(a.IP)}] = true
		}
	}
	return out, nil
}
