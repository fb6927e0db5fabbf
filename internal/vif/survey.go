package vif

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
	"netvmd/internal/rtnetlink"
)

// land is what the records, the kernel and the firewall say of all vifs at one moment.
type land struct {
	records  []Spec             // ordered by domain and device
	broken   map[string]error   // records that cannot be read
	devices  map[string]*netdev // those whose name is that of a vif
	admitted map[string][]netip.Addr
	strays   map[string][]netip.Addr // admissions that others made halves of
	holders  map[netip.Addr]string   // the vif that an address belongs to
}

// netdev is what the kernel has of one.
type netdev struct {
	index, group int
	up           bool
	routes       map[netip.Addr]map[int]bool // to single addresses, by their metrics
	addresses    map[netip.Addr]bool         // of single hosts
	neighbours   map[netip.Addr]string       // the permanent ones, by their Ethernet address
}

// survey looks at everything once: each list is read in whole, whatever the number of vifs.
func (s *Setup) survey(ctx context.Context, remembered shelf) (*land, error) {
	l := &land{devices: map[string]*netdev{}}
	var err error
	if l.records, l.broken, err = s.records.all(remembered); err != nil {
		return nil, err
	}
	if err := l.readKernel(s.kernel); err != nil {
		return nil, err
	}
	if l.admitted, err = byVif(s.Gate.Admitted(ctx)); err != nil {
		return nil, err
	}
	if l.strays, err = byVif(s.Gate.Strays(ctx)); err != nil {
		return nil, err
	}
	l.settleHolders()
	return l, nil
}

func byVif(list []netvm.Admission, err error) (map[string][]netip.Addr, error) {
	out := map[string][]netip.Addr{}
	for _, a := range list {
		out[a.Vif] = append(out[a.Vif], a.Addr)
	}
	return out, err
}

// settleHolders says whose an address is: the newest domain's whose device is there.
func (l *land) settleHolders() {
	l.holders = map[netip.Addr]string{}
	for _, spec := range l.records {
		if l.devices[spec.Name] == nil {
			continue
		}
		for _, a := range spec.Addresses {
			l.holders[a] = spec.Name
		}
	}
}

func (l *land) readKernel(k *kernel) error {
	links, err := rtnetlink.Whole(k.LinkList)
	if err != nil {
		return fmt.Errorf("list the devices: %w", err)
	}
	byIndex := map[int]*netdev{}
	for _, link := range links {
		at := link.Attrs()
		if _, _, err := ParseName(at.Name); err != nil {
			continue
		}
		d := &netdev{
			index: at.Index, group: int(at.Group), up: at.Flags&net.FlagUp != 0,
			routes: map[netip.Addr]map[int]bool{}, addresses: map[netip.Addr]bool{}, neighbours: map[netip.Addr]string{},
		}
		l.devices[at.Name], byIndex[at.Index] = d, d
	}
	if len(byIndex) == 0 {
		return nil
	}
	for _, read := range []func(*kernel, map[int]*netdev) error{readRoutes, readAddresses, readNeighbours} {
		if err := read(k, byIndex); err != nil {
			return err
		}
	}
	return nil
}

func readRoutes(k *kernel, devices map[int]*netdev) error {
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	list, err := rtnetlink.Whole(func() ([]netlink.Route, error) {
		return k.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fmt.Errorf("list the routes: %w", err)
	}
	for _, r := range list {
		d := devices[r.LinkIndex]
		if d == nil || r.Dst == nil || !isSingle(r.Dst) {
			continue
		}
		to := rtnetlink.Address(r.Dst.IP)
		if d.routes[to] == nil {
			d.routes[to] = map[int]bool{}
		}
		d.routes[to][r.Priority] = true
	}
	return nil
}

func readAddresses(k *kernel, devices map[int]*netdev) error {
	list, err := rtnetlink.Whole(func() ([]netlink.Addr, error) { return k.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list the addresses: %w", err)
	}
	for _, a := range list {
		if d := devices[a.LinkIndex]; d != nil && isSingle(a.IPNet) {
			d.addresses[rtnetlink.Address(a.IP)] = true
		}
	}
	return nil
}

func readNeighbours(k *kernel, devices map[int]*netdev) error {
	list, err := rtnetlink.Whole(func() ([]netlink.Neigh, error) { return k.NeighList(0, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list the neighbours: %w", err)
	}
	for _, n := range list {
		if d := devices[n.LinkIndex]; d != nil && n.State&unix.NUD_PERMANENT != 0 {
			d.neighbours[rtnetlink.Address(n.IP)] = n.HardwareAddr.String()
		}
	}
	return nil
}

// isSingle tells whether a network holds one address.
func isSingle(n *net.IPNet) bool {
	ones, bits := n.Mask.Size()
	return ones == bits
}

// drift is where a vif differs from its record, in words.
type drift struct {
	kernel   []string
	firewall []string
}

func (d drift) all() []string { return slices.Concat(d.firewall, d.kernel) }

// drift compares a vif whose device is there with its record. An address that moved to a newer domain is no difference,
// and neither are routes that somebody added.
func (l *land) drift(spec Spec) drift {
	var out drift
	d, admitted := l.devices[spec.Name], l.admitted[spec.Name]
	for _, a := range l.entitled(spec) {
		if !slices.Contains(admitted, a) {
			out.firewall = append(out.firewall, fmt.Sprintf("it may not send from %s", a))
		}
	}
	for _, a := range slices.Concat(admitted, l.strays[spec.Name]) {
		if !slices.Contains(spec.Addresses, a) {
			out.firewall = append(out.firewall, fmt.Sprintf("it may send from %s, which is not its own", a))
		}
	}
	if d.group != vifGroup {
		out.kernel = append(out.kernel, fmt.Sprintf("the device is in group %d instead of %d", d.group, vifGroup))
	}
	if !d.up {
		out.kernel = append(out.kernel, "the device is down")
	}
	for _, a := range spec.Addresses {
		if metric := priority(a, spec.Metric); !d.routes[a][metric] {
			out.kernel = append(out.kernel, fmt.Sprintf("the route to %s with metric %d is missing", a, metric))
		}
		if is := d.neighbours[a]; is != spec.MAC {
			out.kernel = append(out.kernel, fmt.Sprintf("the permanent neighbour %s is %q instead of %s", a, is, spec.MAC))
		}
	}
	for _, a := range spec.gateways() {
		if !d.addresses[a] {
			out.kernel = append(out.kernel, fmt.Sprintf("the address %s is missing", a))
		}
	}
	return out
}

// entitled are the addresses of a vif that belong to no newer domain.
func (l *land) entitled(spec Spec) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(spec.Addresses), func(a netip.Addr) bool { return l.holders[a] != spec.Name })
}

// gone are the vifs without a device of which there is something left: a record, good or broken, or an admission.
func (l *land) gone() []string {
	left := map[string]bool{}
	for _, spec := range l.records {
		left[spec.Name] = true
	}
	for name := range l.broken {
		left[name] = true
	}
	for _, admitted := range []map[string][]netip.Addr{l.admitted, l.strays} {
		for name := range admitted {
			_, _, err := ParseName(name)
			left[name] = err == nil // what an admin admits by another name is his own
		}
	}
	var out []string
	for name, is := range left {
		if is && l.devices[name] == nil {
			out = append(out, name)
		}
	}
	slices.SortFunc(out, byAge)
	return out
}
