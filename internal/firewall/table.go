package firewall

import (
	"fmt"
	"hash/fnv"
	"io"
	"net/netip"
	"slices"

	"netvmd/internal/netvm"
)

// entry is what the kernel does with queries to one virtual address.
type entry struct {
	resolver netip.Addr // invalid: not translated
	zone     uint16     // of conntrack, for the original direction of UDP flows
	zoned    bool
	refused  bool
}

func (e entry) String() string {
	where := "nothing"
	switch {
	case e.refused && e.resolver.IsValid():
		where = "both refused and led to " + e.resolver.String()
	case e.refused:
		where = "refused"
	case e.resolver.IsValid():
		where = e.resolver.String()
	}
	if !e.zoned {
		return where
	}
	return fmt.Sprintf("%s (zone %d)", where, e.zone)
}

// table is what the kernel does, or should do, with the virtual addresses.
type table map[netip.Addr]entry

// wanted checks the targets and gives the table that they ask for.
func wanted(targets []netvm.Target) (table, error) {
	want := make(table, len(targets))
	for _, t := range targets {
		virtual, resolver := t.Virtual, t.Resolver.Addr
		switch {
		case !virtual.IsValid() || virtual.Is4In6() || virtual.Zone() != "":
			return nil, fmt.Errorf("target %v: %q is no virtual address", t, virtual)
		case want[virtual] != entry{}:
			return nil, fmt.Errorf("target %s: given twice", virtual)
		case !t.Served():
			want[virtual] = entry{refused: true, zoned: true, zone: zoneOf(netvm.Resolver{})}
			continue
		case resolver.Is4() != virtual.Is4() || resolver.Is4In6():
			return nil, fmt.Errorf("target %s: resolver %s is of another address family", virtual, resolver)
		case resolver.Zone() != "":
			return nil, fmt.Errorf("target %s: resolver %s is of one link only, and NAT knows no links", virtual, resolver)
		}
		want[virtual] = entry{resolver: resolver, zoned: true, zone: zoneOf(t.Resolver)}
	}
	return want, nil
}

// targets says where the virtual addresses lead. The kernel does not tell for which device a resolver was announced.
func (t table) targets() []netvm.Target {
	var out []netvm.Target
	for _, v4 := range []bool{true, false} {
		for _, v := range t.sorted(v4) {
			target := netvm.Target{Virtual: v}
			if e := t[v]; !e.refused {
				target.Resolver.Addr = e.resolver
			}
			out = append(out, target)
		}
	}
	return out
}

// refusing is the table in which none of these virtual addresses has a resolver.
func refusing(virtual []netip.Addr) (table, error) {
	targets := make([]netvm.Target, len(virtual))
	for i, v := range virtual {
		targets[i].Virtual = v
	}
	return wanted(targets)
}

// zoneOf gives the conntrack zone of a resolver, 1 to 65535: 0 is the zone of all other traffic. It depends on nothing
// but the resolver, so that a new process finds the zones that the old one left. Two resolvers share a zone once in
// 65535 pairs; then a client that keeps its port moves when its flow is purged, instead of at once.
func zoneOf(r netvm.Resolver) uint16 {
	h := fnv.New32a()
	// fnv's Write never fails.
	_, _ = io.WriteString(h, r.Addr.String()+"\x00"+r.Interface)
	sum := h.Sum32()
	return uint16(sum%0xffff) + 1
}

// differing lists the virtual addresses at which two tables differ, in order.
func differing(a, b table) []netip.Addr {
	var out []netip.Addr
	for v := range a {
		if a[v] != b[v] {
			out = append(out, v)
		}
	}
	for v := range b {
		if _, both := a[v]; !both {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// describeChanges says in a sentence each what changed from one table to the other.
func describeChanges(was, now table) []string {
	var out []string
	for _, v := range differing(was, now) {
		out = append(out, fmt.Sprintf("%s: now %s, was %s", v, now[v], was[v]))
	}
	return out
}

// describeDifferences says in a sentence each where the kernel is not as wanted.
func describeDifferences(kernel, want table) []string {
	var out []string
	for _, v := range differing(kernel, want) {
		out = append(out, fmt.Sprintf("%s: %s in the kernel, %s wanted", v, kernel[v], want[v]))
	}
	return out
}

// sorted gives the virtual addresses of one family in order.
func (t table) sorted(v4 bool) []netip.Addr {
	var out []netip.Addr
	for v := range t {
		if v.Is4() == v4 {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}
