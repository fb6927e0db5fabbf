package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netvmd/internal/vif"
)

// sysctls is where the settings of the network are; each network namespace sees its own.
const sysctls = "/proc/sys/net/"

// conntrack is whether flows can be listed over netlink, and as text.
type conntrack struct {
	err  error
	text bool
}

func readConntrack(_ context.Context, m *machine) (conntrack, error) {
	text, err := m.exists("/proc/thread-self/net/nf_conntrack")
	if err != nil {
		return conntrack{}, err
	}
	_, failure := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET6) // mostly the shorter list
	if errors.Is(failure, netlink.ErrDumpInterrupted) {
		failure = nil // flows come and go, and some were listed
	}
	return conntrack{failure, text}, nil
}

func (c conntrack) judge() finding {
	switch {
	case c.err != nil:
		return fail("flows cannot be listed over netlink ("+c.err.Error()+"): clients would keep a resolver of the past",
			"Run: modprobe nf_conntrack_netlink")
	case !c.text:
		return fine("over netlink alone, as there is no /proc/net/nf_conntrack: a vif that comes or goes costs some 10 ms more")
	}
	return fine("over netlink and /proc/net/nf_conntrack")
}

// forwarding is whether packets pass from vifs to uplinks.
type forwarding struct {
	vifs int
	off  []string // settings that should be 1, as sysctl(8) takes them
}

func readForwarding(_ context.Context, m *machine) (forwarding, error) {
	names, err := m.vifs()
	if err != nil {
		return forwarding{}, err
	}
	wanted := []string{"ipv4/ip_forward"}
	for _, name := range names {
		wanted = append(wanted, "ipv4/conf/"+name+"/forwarding")
		disabled, err := m.read(sysctls + "ipv6/conf/" + name + "/disable_ipv6")
		if err != nil {
			return forwarding{}, err
		}
		if disabled == "0" { // a vif without an IPv6 address has 1
			wanted = append(wanted, "ipv6/conf/all/forwarding", "ipv6/conf/"+name+"/forwarding")
		}
	}
	out := forwarding{vifs: len(names)}
	for _, path := range wanted {
		value, err := m.read(sysctls + path)
		if err != nil {
			return out, err
		}
		if value != "1" && !slices.Contains(out.off, "net/"+path) {
			out.off = append(out.off, "net/"+path)
		}
	}
	return out, nil
}

func (f forwarding) judge() finding {
	switch {
	case f.vifs == 0:
		return fine("there is no vif; the first one turns it on")
	case len(f.off) > 0:
		return fail("off: "+strings.Join(f.off, ", "), "Run: sysctl -w "+strings.Join(f.off, "=1 ")+"=1")
	}
	return fine("on, for each of %d vifs", f.vifs)
}

// reversePath is about a filter that takes answers for forged which come another way than the kernel would send.
type reversePath struct {
	uplinks []string // devices with a default route
	strict  []string // those of them that are filtered strictly
}

func readReversePath(_ context.Context, m *machine) (reversePath, error) {
	routes, err := vif.Routes()
	if err != nil {
		return reversePath{}, err
	}
	var out reversePath
	for _, r := range routes {
		if r.Genmask.IsUnspecified() && r.Interface != "-" && !slices.Contains(out.uplinks, r.Interface) {
			out.uplinks = append(out.uplinks, r.Interface)
		}
	}
	for _, uplink := range out.uplinks {
		// The higher of the two counts (Linux, Documentation/networking/ip-sysctl.rst, rp_filter).
		highest := ""
		for _, of := range []string{"all", uplink} {
			value, err := m.read(sysctls + "ipv4/conf/" + of + "/rp_filter")
			if err != nil {
				return out, err
			}
			highest = max(highest, value)
		}
		if highest == "1" {
			out.strict = append(out.strict, uplink)
		}
	}
	return out, nil
}

func (r reversePath) judge() finding {
	if len(r.uplinks) > 1 && len(r.strict) > 0 {
		return warn(fmt.Sprintf("strict on %s beside another default route: answers that come that way are dropped", strings.Join(r.strict, ", ")),
			"Run: sysctl -w net.ipv4.conf."+strings.Join(r.strict, ".rp_filter=2 net.ipv4.conf.")+".rp_filter=2")
	}
	return fine("it stops nothing that is wanted")
}

// limits are the files that hold refusals back, as sysctl(8) takes them.
type limits []string

func readLimits(_ context.Context, m *machine) (limits, error) {
	var out limits
	for _, path := range []string{"ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"} {
		value, err := m.read(sysctls + path)
		if err != nil {
			return nil, err
		}
		if value != "" && value != "0" {
			out = append(out, "net/"+path)
		}
	}
	return out, nil
}

func (l limits) judge() finding {
	if len(l) > 0 {
		return warn("after six refusals in a row AppVMs get one a second, and wait for the rest: "+strings.Join(l, ", "),
			"Run: sysctl -w "+strings.Join(l, "=0 ")+"=0")
	}
	return fine("each query without a resolver is refused")
}
