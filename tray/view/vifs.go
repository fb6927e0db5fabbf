package view

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"

	"netvmd/internal/netvm"
	"netvmd/internal/words"
)

const (
	vifPlaces   = 8  // so many vifs have a submenu each
	vifList     = 20 // so many are listed in one submenu; more are in groups
	vifGroups   = 20 // there are at most so many groups, hence they grow with the number of vifs
	mostInGroup = 50 // of a group, so many are listed: with 1,000 vifs, all
)

// traces are what the kernel says of the vifs.
type traces struct {
	routes  map[netip.Addr]netvm.Route // to one address each; nil = not read yet
	traffic map[string]netvm.Traffic
	now     time.Time
}

func tracesOf(k Known) traces {
	t := traces{traffic: make(map[string]netvm.Traffic, len(k.Traffic)), now: k.Now}
	for _, each := range k.Traffic {
		t.traffic[each.Vif] = each
	}
	if k.Routes == nil {
		return t
	}
	t.routes = make(map[netip.Addr]netvm.Route, len(k.Routes))
	for _, r := range k.Routes {
		if r.Genmask == hostMask {
			t.routes[r.Destination] = r
		}
	}
	return t
}

// hostMask is the mask of a route to one address.
var hostMask = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// vifRows are the vifs with a submenu each or, of many, lines in a submenu or in groups of one. Each of these ways has
// places of its own.
func vifRows(k Known) []Row {
	t, vifs := tracesOf(k), k.Status.Vifs
	var single []Row
	var list, groups, note Row
	switch n := len(vifs); {
	case !k.Running:
		note = say("AppVMs stay connected; new ones come up too")
	case n == 0:
		note = say("No AppVM is connected")
	case n <= vifPlaces:
		single = each(vifs, vifPlaces, t.vif)
	case n <= vifList:
		list = under(heading(words.Count(n, "vif"), vifs), each(vifs, vifList, t.line))
	default:
		groups = under(heading(words.Count(n, "vif"), vifs), t.groups(vifs))
	}
	return append(places(single, vifPlaces), list, groups, note)
}

// heading adds how many vifs are degraded.
func heading(text string, vifs []netvm.Vif) string {
	if n := degraded(vifs); n > 0 {
		return fmt.Sprintf("%s, %d degraded", text, n)
	}
	return text
}

func isDegraded(v netvm.Vif) bool { return v.State != netvm.VifUp }

func degraded(vifs []netvm.Vif) int {
	n := 0
	for _, v := range vifs {
		if isDegraded(v) {
			n++
		}
	}
	return n
}

// groups are those that want to be looked at, and then all.
func (t traces) groups(vifs []netvm.Vif) []Row {
	var bad []netvm.Vif
	for _, v := range vifs {
		if isDegraded(v) {
			bad = append(bad, v)
		}
	}
	rows := []Row{}
	if len(bad) > 0 {
		rows = append(rows, under(fmt.Sprintf("%d degraded", len(bad)), each(bad, mostInGroup, t.line)))
	}
	size := max(vifList, (len(vifs)+vifGroups-1)/vifGroups)
	for len(vifs) > 0 {
		group := vifs[:min(size, len(vifs))]
		vifs = vifs[len(group):]
		text := fmt.Sprintf("%s to %s", group[0].Name, group[len(group)-1].Name)
		rows = append(rows, under(heading(text, group), each(group, mostInGroup, t.line)))
	}
	return rows
}

// summary is a vif's name, addresses and, if it is not as it should be, state.
func summary(v netvm.Vif) string {
	text := v.Name
	if len(v.Addresses) > 0 {
		text += "  " + words.List(v.Addresses[:min(len(v.Addresses), 2)])
	}
	if isDegraded(v) {
		text += ", " + cmp.Or(string(v.State), "in no known state")
	}
	return text
}

// line is all of a vif that one row holds.
func (t traces) line(v netvm.Vif) Row {
	text := fmt.Sprintf("%s, domain %d, metric %d", summary(v), v.DomID, v.Metric)
	if c, counted := t.traffic[v.Name]; counted {
		text += fmt.Sprintf(", sent %s, received %s", words.Size(c.RxBytes), words.Size(c.TxBytes))
	}
	return say("%s", text)
}

// vif is a vif with all that is known of it.
func (t traces) vif(v netvm.Vif) Row {
	rows := each(v.Addresses, mostAddresses, func(a netip.Addr) Row { return say("Address %s", a) })
	if v.Visible.IsValid() {
		rows = append(rows, say("Seen by the AppVM as %s", v.Visible))
	}
	rows = append(rows, say("Domain %d", v.DomID))
	if v.MAC != "" {
		rows = append(rows, say("MAC %s", v.MAC))
	}
	for _, g := range []netip.Addr{v.Gateway, v.Gateway6} {
		if g.IsValid() {
			rows = append(rows, say("Gateway %s", g))
		}
	}
	if v.VisibleGateway.IsValid() {
		rows = append(rows, say("Gateway seen as %s", v.VisibleGateway))
	}
	rows = append(rows, each(v.Addresses, mostAddresses, func(a netip.Addr) Row { return t.route(v, a) })...)
	rows = append(rows, say("State %s", cmp.Or(string(v.State), "unknown")))
	if !v.Since.IsZero() {
		rows = append(rows, say("Since %s", words.Stamp(v.Since, t.now)))
	}
	if c, counted := t.traffic[v.Name]; counted {
		rows = append(rows,
			say("Sent %s, %s", words.Size(c.RxBytes), words.Count(c.RxPackets, "packet")),
			say("Received %s, %s", words.Size(c.TxBytes), words.Count(c.TxPackets, "packet")))
	}
	return under(summary(v), rows)
}

// route is the kernel's route to an address or, while it was not read, the one that there should be. The kernel's table is
// read for IPv4 only.
func (t traces) route(v netvm.Vif, a netip.Addr) Row {
	r, found := t.routes[a]
	switch {
	case t.routes == nil || !a.Is4():
		return say("Route to %s, metric %d", a, v.Metric)
	case !found:
		return say("No route to %s", a)
	}
	return say("Route to %s on %s, metric %d", a, r.Interface, r.Metric)
}
