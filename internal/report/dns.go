package report

import (
	"time"

	"netvmd/internal/netvm"
	"netvmd/internal/words"
)

// DNS is everything about AppVM DNS: where it goes, to which of which servers, why, and whose wish that is.
func DNS(screen Screen, s netvm.Status, now time.Time) string {
	p := &page{screen: screen}
	m, text := served(s)
	p.write("", line{text: symbols[m] + text, mark: m})
	p.blank()
	p.section("Targets", targetLines(s.DNSTargets)...)
	p.section("Source", say("%s", because(s)))
	p.section("Servers", servers(s)...)
	p.section("Not used", dropped(s)...)
	p.section("Overrides", overrides(s, now)...)
	if !s.ChangedAt.IsZero() {
		p.section("Changed", say("%s", lastChange(s, now)))
	}
	return p.String()
}

// Targets is where AppVM DNS goes now, an address a line, and why.
func Targets(screen Screen, s netvm.Status) string {
	p := &page{screen: screen}
	for _, l := range targetLines(s.DNSTargets) {
		p.write("", l)
	}
	p.write("", say("from %s", because(s)))
	return p.String()
}

func servers(s netvm.Status) []line {
	if len(s.DNSServers) == 0 {
		return []line{say("none")}
	}
	var out []line
	for _, r := range s.DNSServers {
		out = append(out, say("%s", r.Addr))
	}
	return out
}

func dropped(s netvm.Status) []line {
	var out []line
	for _, d := range s.DNSDropped {
		out = append(out, say("%s: %s", d.Addr, d.Reason))
	}
	return out
}

func overrides(s netvm.Status, now time.Time) []line {
	var out []line
	for i, o := range s.DNSOverrides {
		state := "waits"
		if i == 0 {
			state = "in force"
		}
		out = append(out, say("%s: %s, %s", state, words.List(o.Servers), words.Holding(o, words.Moment(o.Since, now))))
	}
	return out
}
