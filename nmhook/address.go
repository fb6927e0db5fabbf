package nmhook

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const (
	// dnsPort is the port of plain DNS, RFC 1035 §4.2. AppVMs' queries keep it when they are translated.
	dnsPort = 53
	// maxQuoted bounds how many bytes of a bad value are repeated in a fault.
	maxQuoted = 80
)

// errNotServable says that a nameserver is well-formed, but cannot answer plain DNS on port 53.
var errNotServable = errors.New("cannot serve plain DNS on port 53")

// quote makes a text from outside fit for a sentence.
func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(s[:maxQuoted]) + "…"
	}
	return strconv.Quote(s)
}

// parseNameserver reads NetworkManager's notation of a nameserver (NetworkManager.conf(5), "servers"): an
// address, optionally with #name, or a URI such as dns+udp://192.0.2.1 or dns+tls://192.0.2.1#name. The error
// is errNotServable for one that does not speak plain DNS.
func parseNameserver(s string) (netip.Addr, error) {
	rest, _, _ := strings.Cut(s, "#")
	scheme, after, isURI := strings.Cut(rest, "://")
	port := uint16(dnsPort)
	if isURI {
		rest = after
		if ap, err := netip.ParseAddrPort(rest); err == nil {
			rest, port = ap.Addr().String(), ap.Port()
		}
		rest = strings.TrimSuffix(strings.TrimPrefix(rest, "["), "]")
	}
	addr, err := netip.ParseAddr(rest)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s is not a nameserver", quote(s))
	}
	if isURI && scheme != "dns+udp" || port != dnsPort {
		return netip.Addr{}, fmt.Errorf("%s %w", quote(s), errNotServable)
	}
	return addr.Unmap(), nil
}
