package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"netvmd/internal/netvm"
	"netvmd/internal/words"
)

// fewVifs is how many vifs the status lists, so that it fits a terminal of 24 lines.
const fewVifs = 8

// symbols say with a shape what the colour says.
var symbols = map[mark]string{good: "✓ ", warn: "! ", bad: "✗ "}

// Status is the netvm in one look: the verdict first, then through what, DNS, vifs, and what is wrong.
func Status(screen Screen, s netvm.Status, now time.Time) string {
	p := &page{screen: screen}
	m, text := verdict(s)
	p.write("", line{text: symbols[m] + text, mark: m})
	p.blank()
	p.section("Uplink", uplinks(s)...)
	p.section("AppVM DNS", appVMDNS(s, now)...)
	p.section("vifs", vifSummary(s.Vifs)...)
	p.section("Problems", problems(s)...)
	return p.String()
}

func verdict(s netvm.Status) (mark, string) {
	m, text := reach(s)
	dnsMark, dns := served(s)
	text += " " + dns
	m = max(m, dnsMark)
	if degraded := countDegraded(s.Vifs); degraded > 0 {
		m = max(m, warn)
		text += " " + words.Count(degraded, "vif") + " degraded."
	}
	if len(s.Problems) > 0 {
		m = max(m, warn)
		text += " " + words.Count(len(s.Problems), "problem") + "."
	}
	return m, text
}

func reach(s netvm.Status) (mark, string) {
	if !s.Unmanaged() {
		return extent(s)
	}
	const away = "NetworkManager is not running"
	if s.State == netvm.Offline {
		return warn, away + ": uplinks are not seen."
	}
	m, text := extent(s)
	return max(m, warn), text + " That was the last word: " + away + "."
}

// extent is how far the netvm gets, as NetworkManager says.
func extent(s netvm.Status) (mark, string) {
	way := words.WayOut(s.Uplinks)
	if way != "" {
		way = " through " + way
	}
	switch s.State {
	case netvm.Online:
		return good, "Online" + way + "."
	case netvm.Connecting:
		return warn, "Connecting" + way + "."
	case netvm.Limited:
		return warn, "Connected" + way + ", but the Internet is not reached."
	case netvm.Portal:
		return warn, "Connected" + way + " to a captive portal: log in with a browser."
	case netvm.Offline:
		return bad, "Offline: no uplink is active."
	}
	return warn, fmt.Sprintf("In a state that this netvmctl does not know (%s).", s.State)
}

// serviceMarks say how good the news of AppVM DNS are.
var serviceMarks = map[words.Service]mark{words.Unled: warn, words.Unserved: bad, words.PartlyServed: warn, words.Served: good}

func served(s netvm.Status) (mark, string) {
	service, text := words.AppVMDNS(s)
	return serviceMarks[service], text
}

func uplinks(s netvm.Status) []line {
	switch {
	case len(s.Uplinks) > 0:
	case !s.Unmanaged():
		return []line{say("none")}
	default:
		return []line{say("not seen")}
	}
	var out []line
	for _, u := range s.Uplinks {
		out = append(out, say("%s", describe(u)))
		where := words.List(u.Addresses)
		if u.Gateway.IsValid() {
			where = strings.TrimPrefix(where+", gateway "+u.Gateway.String(), ", ")
		}
		if where != "" {
			out = append(out, line{text: where, below: true})
		}
	}
	if s.PortalURL != "" {
		out = append(out, say("log in at %s", s.PortalURL))
	}
	return out
}

// describe says what an uplink is: as people call it, NetworkManager's name where that is another, and the device.
func describe(u netvm.Uplink) string {
	parts := []string{words.Through(u)}
	if u.SSID != "" {
		parts = append(parts, fmt.Sprintf("%d %%", u.Strength))
		if u.ID != "" && u.ID != u.SSID {
			parts = append(parts, "connection "+words.Quoted(u.ID))
		}
	}
	if u.Interface != "" {
		parts = append(parts, u.Interface)
	}
	if u.Metered {
		parts = append(parts, "metered")
	}
	return strings.Join(parts, ", ")
}

func appVMDNS(s netvm.Status, now time.Time) []line {
	out := targetLines(s.DNSTargets)
	if len(s.DNSTargets) == 0 {
		out = []line{say("not led anywhere yet")}
	}
	out = append(out, say("from %s", because(s)))
	if !s.ChangedAt.IsZero() {
		out = append(out, say("since %s", lastChange(s, now)))
	}
	return out
}

func targetLines(targets []netvm.Target) []line {
	var cells [][]string
	for _, t := range targets {
		cells = append(cells, []string{t.Virtual.String(), words.Led(t)})
	}
	var out []line
	for i, l := range columns(words.Arrow, cells) {
		m := good
		if !targets[i].Served() {
			m = bad
		}
		out = append(out, line{text: l, mark: m, row: true})
	}
	return out
}

// because says where the resolvers come from, and why.
func because(s netvm.Status) string {
	if s.DNSReason == "" {
		return words.Source(s.DNSSource)
	}
	return words.Source(s.DNSSource) + ": " + s.DNSReason
}

func lastChange(s netvm.Status, now time.Time) string {
	return fmt.Sprintf("%s, took %s", words.Moment(s.ChangedAt, now), words.Took(s.ApplyTime))
}

// vifSummary lists the vifs or, of many, the first and all that want to be looked at before them.
func vifSummary(vifs []netvm.Vif) []line {
	if len(vifs) == 0 {
		return []line{say("none: no AppVM is connected")}
	}
	shown := slices.Clone(vifs)
	if len(shown) > fewVifs {
		slices.SortStableFunc(shown, func(a, b netvm.Vif) int { return cmp.Compare(urgency(a), urgency(b)) })
		shown = shown[:fewVifs-1]
	}
	var cells [][]string
	for _, v := range shown {
		cells = append(cells, []string{v.Name, fmt.Sprintf("domain %d", v.DomID), words.List(v.Addresses), string(v.State)})
	}
	out := rows(cells)
	for i := range out {
		out[i].mark = vifMark(shown[i])
	}
	if more := len(vifs) - len(shown); more > 0 {
		out = append(out, say("… and %d more: netvmctl vifs", more))
	}
	return out
}

// urgency orders those first that are not as they should be.
func urgency(v netvm.Vif) int {
	if v.State != netvm.VifUp {
		return 0
	}
	return 1
}

func vifMark(v netvm.Vif) mark {
	if v.State != netvm.VifUp {
		return warn
	}
	return plain
}

func countDegraded(vifs []netvm.Vif) int {
	n := 0
	for _, v := range vifs {
		if v.State != netvm.VifUp {
			n++
		}
	}
	return n
}

func problems(s netvm.Status) []line {
	var out []line
	for _, text := range s.Problems {
		out = append(out, line{text: symbols[warn] + text, mark: warn})
	}
	return out
}
