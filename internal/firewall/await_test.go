package firewall

import (
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// awaitCarrier waits until the devices carry: one that is up drops what is sent until the kernel has noticed its peer.
func (n *topology) awaitCarrier(devices ...string) {
	n.t.Helper()
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	must(n.t, netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ListExisting: true}))
	defer unsubscribe(done, updates)
	late := time.After(patience)
	for waiting := slices.Clone(devices); len(waiting) > 0; {
		select {
		case u := <-updates:
			if u.Attrs().OperState == netlink.OperUp {
				waiting = slices.DeleteFunc(waiting, func(d string) bool { return d == u.Attrs().Name })
			}
		case <-late:
			n.t.Fatalf("%q do not carry", waiting)
		}
	}
}

// awaitOwn waits until the kernel takes packets to IPv6 addresses for its own: also without duplicate detection it makes
// their local routes later, in a worker (addrconf_dad_work).
func (n *topology) awaitOwn(addrs ...netip.Addr) {
	n.t.Helper()
	updates, done := make(chan netlink.RouteUpdate), make(chan struct{})
	must(n.t, netlink.RouteSubscribeWithOptions(updates, done, netlink.RouteSubscribeOptions{ListExisting: true}))
	defer unsubscribe(done, updates)
	late := time.After(patience)
	for waiting := slices.Clone(addrs); len(waiting) > 0; {
		select {
		case u := <-updates:
			if u.Route.Type != unix.RTN_LOCAL || u.Dst == nil {
				continue
			}
			local, _ := netip.AddrFromSlice(u.Dst.IP)
			waiting = slices.DeleteFunc(waiting, func(a netip.Addr) bool { return a == local.Unmap() })
		case <-late:
			n.t.Fatalf("%v are not taken for the netvm's own", waiting)
		}
	}
}

// unsubscribe ends a subscription of rtnetlink's events.
func unsubscribe[T any](done chan<- struct{}, updates <-chan T) {
	close(done)
	go func() {
		for range updates { // until the subscription's goroutine notices and closes it
			continue
		}
	}()
}
