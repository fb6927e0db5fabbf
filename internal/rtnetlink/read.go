package rtnetlink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// timeout bounds one exchange with the kernel, which holds the lock of all devices while one goes away.
	timeout = 10 * time.Second
	// attempts bounds how often a dump that the kernel interrupted is begun again at once.
	attempts = 10
)

// Open opens a handle in the network namespace of the calling thread. Close it.
func Open() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	if err := h.SetSocketTimeout(timeout); err != nil {
		h.Close()
		return nil, fmt.Errorf("set a timeout on rtnetlink: %w", err)
	}
	return h, nil
}

// Find finds a device; nil = there is none of that name.
func Find(h *netlink.Handle, name string) (netlink.Link, error) {
	l, err := h.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the device: %w", err)
	}
	return l, nil
}

// Whole dumps until a dump was not interrupted by a change.
func Whole[T any](dump func() ([]T, error)) (list []T, err error) {
	for range attempts {
		if list, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return list, err
}

// Address is the typed form of an address of the netlink library; the zero Addr for none.
func Address(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
