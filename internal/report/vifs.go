package report

import (
	"net/netip"
	"slices"
	"strconv"
	"time"

	"netvmd/internal/netvm"
	"netvmd/internal/words"
)

// field is a column of a table of vifs. A vif takes a row for each of its addresses; what is the same for all of them is in
// the first alone.
type field struct {
	head string
	of   func(v netvm.Vif) string
	each func(v netvm.Vif, a netip.Addr) string // instead of: one for each address
	room bool                                   // only where the terminal has room for it; JSON has it always
}

var (
	vifName   = field{head: "VIF", of: func(v netvm.Vif) string { return v.Name }}
	vifDomain = field{head: "DOMAIN", of: func(v netvm.Vif) string { return strconv.Itoa(v.DomID) }}
	vifAddr   = field{head: "ADDRESS", each: seenAs}
	vifState  = field{head: "STATE", of: func(v netvm.Vif) string { return string(v.State) }}
)

// Vifs is the table of the AppVMs' cards.
func Vifs(screen Screen, vifs []netvm.Vif, now time.Time) string {
	return vifTable(screen, vifs, []field{
		vifName, vifDomain, vifAddr,
		{head: "MAC", of: func(v netvm.Vif) string { return v.MAC }},
		{head: "GATEWAY", each: gateway, room: true},
		{head: "METRIC", of: func(v netvm.Vif) string { return strconv.Itoa(v.Metric) }, room: true},
		vifState,
		{head: "SINCE", of: func(v netvm.Vif) string { return words.Stamp(v.Since, now) }},
	})
}

// Traffic is the table of what the AppVMs sent and received.
func Traffic(screen Screen, vifs []netvm.Vif, traffic []netvm.Traffic) string {
	counted := func(number func(netvm.Traffic) string) func(netvm.Vif) string {
		return func(v netvm.Vif) string {
			i := slices.IndexFunc(traffic, func(t netvm.Traffic) bool { return t.Vif == v.Name })
			if i < 0 { // it came after the counting
				return "unknown"
			}
			return number(traffic[i])
		}
	}
	return vifTable(screen, vifs, []field{
		vifName, vifDomain, vifAddr,
		{head: "SENT", of: counted(func(t netvm.Traffic) string { return words.Size(t.RxBytes) })},
		{head: "PACKETS", of: counted(func(t netvm.Traffic) string { return strconv.FormatUint(t.RxPackets, 10) })},
		{head: "RECEIVED", of: counted(func(t netvm.Traffic) string { return words.Size(t.TxBytes) })},
		{head: "PACKETS", of: counted(func(t netvm.Traffic) string { return strconv.FormatUint(t.TxPackets, 10) })},
		vifState,
	})
}

func vifTable(screen Screen, vifs []netvm.Vif, fields []field) string {
	p := &page{screen: screen}
	if len(vifs) == 0 {
		p.write("", say("No AppVM is connected."))
		return p.String()
	}
	cells, marks := vifRows(vifs, fields)
	if screen.Width > 0 && slices.ContainsFunc(columns(gap, cells), func(row string) bool { return words.Width(row) > screen.Width }) {
		cells, marks = vifRows(vifs, slices.DeleteFunc(fields, func(f field) bool { return f.room }))
	}
	p.table(cells, marks)
	return p.String()
}

// vifRows makes the rows of a table, the head first.
func vifRows(vifs []netvm.Vif, fields []field) (cells [][]string, marks []mark) {
	var head []string
	for _, f := range fields {
		head = append(head, f.head)
	}
	cells, marks = append(cells, head), append(marks, strong)
	for _, v := range vifs {
		for i := range max(1, len(v.Addresses)) {
			row := make([]string, len(fields))
			for j, f := range fields {
				switch {
				case f.each != nil && i < len(v.Addresses):
					row[j] = f.each(v, v.Addresses[i])
				case f.each == nil && i == 0:
					row[j] = f.of(v)
				}
			}
			cells, marks = append(cells, row), append(marks, vifMark(v))
		}
	}
	return cells, marks
}

// seenAs is an address and, where the AppVM sees itself under another, that one. Only its first is hidden.
func seenAs(v netvm.Vif, a netip.Addr) string {
	if !v.Visible.IsValid() || a != v.Addresses[0] {
		return a.String()
	}
	return a.String() + " as " + v.Visible.String()
}

// gateway is what the AppVM reaches the rest through from an address.
func gateway(v netvm.Vif, a netip.Addr) string {
	if a.Is4() {
		return words.Address(v.Gateway, "none")
	}
	return words.Address(v.Gateway6, "none")
}
