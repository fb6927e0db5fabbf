package report

import (
	"fmt"
	"slices"
	"time"

	"netvmd/internal/netvm"
	"netvmd/internal/words"
)

// Change is one thing that is different from before, for people and, as JSON, for programs.
type Change struct {
	Time      int64       `json:"time"`                 // when it was seen: CLOCK_REALTIME in microseconds
	Event     string      `json:"event"`                // netvmd, status, networkmanager, state, portal, uplink, target, source, vif or problem
	Subject   string      `json:"subject"`              // which uplink, virtual address or vif; of a source, why; else ""
	From      string      `json:"from"`                 // "" = it was not there, or refused
	To        string      `json:"to"`                   // "" = it is gone, or refused
	ApplyTime int64       `json:"apply_time,omitempty"` // of a target: microseconds from the signal to the kernel
	Status    *StatusJSON `json:"status,omitempty"`     // of the event status: all there is

	text string
	mark mark
}

// Line is the change for people, on one line, with the time of day.
func (c Change) Line(screen Screen) string {
	stamp := time.UnixMicro(c.Time).Format("15:04:05.000")
	return stamp + "  " + screen.paint(c.mark, words.Harmless(c.text)) + "\n"
}

// Started and Stopped are the changes of netvmd itself.
func Started(now time.Time) Change {
	return Change{Time: micros(now), Event: "netvmd", From: "stopped", To: "running", text: "netvmd is running", mark: good}
}

// Stopped is also what a watch begins with when netvmd is not running.
func Stopped(now time.Time) Change {
	return Change{Time: micros(now), Event: "netvmd", From: "running", To: "stopped",
		text: "netvmd is not running; the rules that are in the kernel stay", mark: warn}
}

// Present is the status with which a watch begins.
func Present(s netvm.Status, now time.Time) Change {
	m, text := verdict(s)
	all := JSON(s)
	return Change{Time: micros(now), Event: "status", Status: &all, text: text, mark: m}
}

// Changes says what is different between two statuses, the way out first.
func Changes(before, after netvm.Status, now time.Time) []Change {
	out := stateChanges(before, after)
	out = append(out, uplinkChanges(before.Uplinks, after.Uplinks)...)
	out = append(out, sourceChange(before, after)...)
	out = append(out, targetChanges(before, after)...)
	out = append(out, vifChanges(before.Vifs, after.Vifs)...)
	out = append(out, problemChanges(before.Problems, after.Problems)...)
	for i := range out {
		out[i].Time = micros(now)
	}
	return out
}

// stateChanges are those of how far the netvm gets, and of who says so.
func stateChanges(before, after netvm.Status) []Change {
	var out []Change
	switch {
	case !before.Unmanaged() && after.Unmanaged():
		out = append(out, Change{Event: "networkmanager", From: "running", To: "stopped", text: "NetworkManager is not running", mark: warn})
	case before.Unmanaged() && !after.Unmanaged():
		out = append(out, Change{Event: "networkmanager", From: "stopped", To: "running", text: "NetworkManager is running", mark: good})
	}
	if before.State != after.State {
		m, _ := reach(after)
		out = append(out, Change{Event: "state", From: string(before.State), To: string(after.State), mark: m,
			text: fmt.Sprintf("%s%s%s", before.State, words.Arrow, after.State)})
	}
	if before.PortalURL != after.PortalURL {
		c := Change{Event: "portal", From: before.PortalURL, To: after.PortalURL, text: "the captive portal is gone", mark: good}
		if after.PortalURL != "" {
			c.text, c.mark = "a captive portal waits: log in at "+after.PortalURL, warn
		}
		out = append(out, c)
	}
	return out
}

// uplinkChanges leaves out the strength of a Wi-Fi, which changes all the time.
func uplinkChanges(before, after []netvm.Uplink) []Change {
	same := func(a netvm.Uplink) func(netvm.Uplink) bool {
		return func(b netvm.Uplink) bool { return a.ID == b.ID && a.Interface == b.Interface }
	}
	var out []Change
	for _, u := range before {
		if !slices.ContainsFunc(after, same(u)) {
			out = append(out, Change{Event: "uplink", Subject: u.ID, From: where(u), text: words.Through(u) + " is gone", mark: warn})
		}
	}
	for _, u := range after {
		i := slices.IndexFunc(before, same(u))
		switch {
		case i < 0:
			out = append(out, Change{Event: "uplink", Subject: u.ID, To: where(u), mark: good,
				text: fmt.Sprintf("%s is there: %s", words.Through(u), where(u))})
		case where(before[i]) != where(u):
			out = append(out, Change{Event: "uplink", Subject: u.ID, From: where(before[i]), To: where(u),
				text: fmt.Sprintf("%s: %s%s%s", words.Through(u), where(before[i]), words.Arrow, where(u))})
		}
	}
	if len(before) > 0 && len(after) > 0 && !same(before[0])(after[0]) && slices.ContainsFunc(before, same(after[0])) {
		out = append(out, Change{Event: "uplink", Subject: after[0].ID, From: where(after[0]), To: where(after[0]),
			text: words.Through(after[0]) + " is the primary uplink now"})
	}
	return out
}

// where is an uplink's device, with its addresses and gateway.
func where(u netvm.Uplink) string {
	out := u.Interface
	if len(u.Addresses) > 0 {
		out += " " + words.List(u.Addresses)
	}
	if u.Gateway.IsValid() {
		out += " via " + u.Gateway.String()
	}
	return out
}

func sourceChange(before, after netvm.Status) []Change {
	if before.DNSSource == after.DNSSource && before.DNSReason == after.DNSReason {
		return nil
	}
	return []Change{{Event: "source", Subject: after.DNSReason, From: before.DNSSource, To: after.DNSSource,
		text: "resolvers from " + because(after)}}
}

func targetChanges(before, after netvm.Status) []Change {
	was := map[string]string{}
	for _, t := range before.DNSTargets {
		was[t.Virtual.String()] = words.Address(t.Resolver.Addr, "")
	}
	var out []Change
	for _, t := range after.DNSTargets {
		virtual, to := t.Virtual.String(), words.Address(t.Resolver.Addr, "")
		from, known := was[virtual]
		delete(was, virtual)
		if known && from == to {
			continue
		}
		c := Change{Event: "target", Subject: virtual, From: from, To: to, mark: good, text: virtual + words.Arrow + words.Led(t)}
		if !t.Served() {
			c.mark = bad
		}
		if !after.ChangedAt.Equal(before.ChangedAt) {
			c.ApplyTime = after.ApplyTime.Microseconds()
			c.text += ", in " + words.Took(after.ApplyTime)
		}
		out = append(out, c)
	}
	for _, t := range before.DNSTargets { // in their order
		if from, gone := was[t.Virtual.String()]; gone {
			out = append(out, Change{Event: "target", Subject: t.Virtual.String(), From: from, text: t.Virtual.String() + " is no virtual DNS address any more"})
		}
	}
	return out
}

// vifChanges takes a vif that came again under its name for one that went and one that came.
func vifChanges(before, after []netvm.Vif) []Change {
	same := func(a netvm.Vif) func(netvm.Vif) bool {
		return func(b netvm.Vif) bool { return a.Name == b.Name && a.Since.Equal(b.Since) }
	}
	var out []Change
	for _, v := range before {
		if !slices.ContainsFunc(after, same(v)) {
			out = append(out, Change{Event: "vif", Subject: v.Name, From: string(v.State), text: v.Name + " is gone"})
		}
	}
	for _, v := range after {
		i := slices.IndexFunc(before, same(v))
		switch {
		case i < 0:
			out = append(out, Change{Event: "vif", Subject: v.Name, To: string(v.State), mark: vifMark(v),
				text: fmt.Sprintf("%s is there: %s, %s", v.Name, words.List(v.Addresses), v.State)})
		case before[i].State != v.State:
			out = append(out, Change{Event: "vif", Subject: v.Name, From: string(before[i].State), To: string(v.State), mark: vifMark(v),
				text: fmt.Sprintf("%s: %s%s%s", v.Name, before[i].State, words.Arrow, v.State)})
		}
	}
	return out
}

func problemChanges(before, after []string) []Change {
	var out []Change
	for _, p := range before {
		if !slices.Contains(after, p) {
			out = append(out, Change{Event: "problem", From: p, text: "solved: " + p, mark: good})
		}
	}
	for _, p := range after {
		if !slices.Contains(before, p) {
			out = append(out, Change{Event: "problem", To: p, text: "problem: " + p, mark: warn})
		}
	}
	return out
}
