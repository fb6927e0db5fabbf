package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"netvmd/internal/netvm"
)

// usable splits the announced resolvers into those that may become targets and those that may not. An address
// announced twice counts once, where it came first.
func usable(announced []netvm.Resolver, in Inputs) (kept []netvm.Resolver, dropped []netvm.Dropped) {
	seen := make(map[netip.Addr]bool, len(announced))
	for _, r := range announced {
		r.Addr = r.Addr.Unmap()
		if seen[r.Addr] {
			continue
		}
		seen[r.Addr] = true
		if reason := unusable(r.Addr, in); reason != "" {
			dropped = append(dropped, netvm.Dropped{Addr: r.Addr, Reason: reason})
			continue
		}
		kept = append(kept, r)
	}
	return kept, dropped
}

// Check says why servers that somebody wants for an override could not all be targets now; only the virtual addresses,
// the own ones and PassThrough of the inputs count. The error is a netvm.InvalidError that names the server.
func Check(servers []netip.Addr, in Inputs) error {
	for _, a := range servers {
		if reason := unusable(a.Unmap(), in); reason != "" {
			return netvm.InvalidError(fmt.Sprintf("server %s cannot be used: it is %s", a, reason))
		}
	}
	return nil
}

// unusable says why an address must not become a target; "" = it may.
func unusable(a netip.Addr, in Inputs) string {
	switch {
	case !a.IsValid() || a.IsUnspecified():
		return "the unspecified address"
	case a.IsLoopback():
		return "a loopback address: a server inside the netvm is not reached by AppVMs"
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "a multicast or broadcast address"
	case a.IsLinkLocalUnicast() || a.Zone() != "":
		// A DNAT target has no scope: the kernel could not tell which link is meant.
		return "a link-local address"
	case in.PassThrough && slices.Contains(in.Virtual, a):
		return ""
	case slices.Contains(in.Virtual, a):
		return "a virtual DNS address itself"
	case slices.Contains(in.Own, a):
		return "an address of the netvm itself"
	}
	return ""
}
