package nmhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

func (s *session) resolvedReader() *reader {
	return &reader{board: s.board, log: s.log, source: sourceResolved, timeout: dnsTimeout,
		read: s.readResolved, known: &s.nm.resolved}
}

// readResolved reads systemd-resolved's DNS property, org.freedesktop.resolve1(5).
func (s *session) readResolved(ctx context.Context) (reading, error) {
	if s.owner(resolvedName) == "" {
		return reading{change: s.running, running: s.running}, nil
	}
	value, err := s.property(ctx, resolvedName, resolvedPath, resolvedIface, "DNS")
	if err != nil {
		return reading{}, err
	}
	servers, bad := decodeResolved(value, interfaceName)
	change := func(v *netvm.View) {
		v.Resolved.Servers = servers
		s.running(v)
	}
	return reading{change: change, running: s.running, malformed: lines(bad)}, nil
}

// decodeResolved decodes a(iiay): interface index (0 = global), address family, address. The error joins a
// line for each part that is malformed.
func decodeResolved(value godbus.Variant, name func(index int) string) ([]netvm.ResolvedServer, error) {
	const property = "systemd-resolved's DNS"
	entries, ok := value.Value().([][]any)
	if !ok {
		return nil, fmt.Errorf("%s is not a(iiay): %s", property, quoteVariant(value))
	}
	var bad []error
	servers := slices.Grow([]netvm.ResolvedServer(nil), len(entries)) // nil if there are none
	for i, entry := range entries {
		server, err := decodeResolvedServer(entry)
		if err != nil {
			bad = append(bad, fmt.Errorf("%s[%d]: %w: %s", property, i, err, quote(fmt.Sprint(entry...))))
			continue
		}
		if server.Link != 0 {
			server.Resolver.Interface = name(server.Link)
		}
		servers = append(servers, server)
	}
	return servers, errors.Join(bad...)
}

func decodeResolvedServer(entry []any) (netvm.ResolvedServer, error) {
	none := netvm.ResolvedServer{}
	if len(entry) != 3 {
		return none, fmt.Errorf("has %d members and not 3", len(entry))
	}
	link, ok1 := entry[0].(int32)
	family, ok2 := entry[1].(int32)
	bytes, ok3 := entry[2].([]byte)
	if !ok1 || !ok2 || !ok3 {
		return none, errors.New("is not (iiay)")
	}
	if link < 0 {
		return none, fmt.Errorf("interface index %d is negative", link)
	}
	addr, ok := netip.AddrFromSlice(bytes)
	if !ok || family == unix.AF_INET && !addr.Is4() || family == unix.AF_INET6 && !addr.Is6() ||
		family != unix.AF_INET && family != unix.AF_INET6 {
		return none, fmt.Errorf("%d bytes are no address of family %d", len(bytes), family)
	}
	return netvm.ResolvedServer{Link: int(link), Resolver: netvm.Resolver{Addr: addr.Unmap()}}, nil
}

// interfaceName asks the kernel; "" for an interface that is gone meanwhile.
func interfaceName(index int) string {
	link, err := net.InterfaceByIndex(index)
	if err != nil {
		return ""
	}
	return link.Name
}
