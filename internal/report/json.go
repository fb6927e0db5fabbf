package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"time"
	"unicode/utf16"

	"netvmd/internal/netvm"
	"netvmd/internal/words"
)

// WriteJSON writes a value as JSON, indented for people or on one line. Characters that a terminal would obey are written as
// JSON's \u escapes, so that the text is harmless and the value the same.
func WriteJSON(w io.Writer, v any, indented bool) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if indented {
		e.SetIndent("", "  ")
	}
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encode JSON: %w", err)
	}
	_, err := w.Write(escaped(b.Bytes()))
	return err
}

// escaped works on finished JSON: what is not ASCII stands in strings alone.
func escaped(text []byte) []byte {
	var out []byte
	for _, r := range string(text) {
		switch {
		case r == '\n' || !words.Obeyed(r):
			out = append(out, string(r)...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// StatusJSON is a status under the names of D-Bus, in snake_case. Times are CLOCK_REALTIME in microseconds, 0 = never;
// lengths of time are microseconds. Lists are never null.
type StatusJSON struct {
	Version   string       `json:"version"`
	State     netvm.State  `json:"state"`
	NMRunning bool         `json:"network_manager_running"`
	Served    bool         `json:"served"`
	PortalURL string       `json:"portal_url"` // "" = no captive portal, or nobody knows where
	Uplinks   []UplinkJSON `json:"uplinks"`
	DNSJSON                // inlined
	Backend   string       `json:"backend"`
	Vifs      []VifJSON    `json:"vifs"`
	Problems  []string     `json:"problems"`
}

// DNSJSON is the part of a status that is about AppVM DNS.
type DNSJSON struct {
	Source    string         `json:"dns_source"`
	Reason    string         `json:"dns_reason"`
	Servers   []string       `json:"dns_servers"`
	Dropped   []DroppedJSON  `json:"dns_dropped"`
	Overrides []OverrideJSON `json:"dns_overrides"`
	Targets   []TargetJSON   `json:"dns_targets"`
	ChangedAt int64          `json:"dns_changed_at"`
	ApplyTime int64          `json:"dns_apply_time"`
}

// UplinkJSON is an entry of uplinks.
type UplinkJSON struct {
	ID        string   `json:"id"`
	Type      string   `json:"type"`
	Interface string   `json:"interface"`
	SSID      string   `json:"ssid"`
	Strength  uint8    `json:"strength"` // in percent
	Addresses []string `json:"addresses"`
	Gateway   string   `json:"gateway"` // "" = none
	VPN       bool     `json:"vpn"`
	Metered   bool     `json:"metered"`
}

// DroppedJSON is an entry of dns_dropped.
type DroppedJSON struct {
	Address string `json:"address"`
	Reason  string `json:"reason"`
}

// OverrideJSON is an entry of dns_overrides.
type OverrideJSON struct {
	Servers    []string `json:"servers"`
	Persistent bool     `json:"persistent"`
	By         string   `json:"by"`
	Since      int64    `json:"since"`
}

// TargetJSON is an entry of dns_targets.
type TargetJSON struct {
	Virtual  string `json:"virtual"`
	Resolver string `json:"resolver"` // "" = refused
}

// VifJSON is an entry of vifs.
type VifJSON struct {
	Name           string         `json:"name"`
	DomID          int            `json:"domid"`
	Addresses      []string       `json:"addresses"`
	Visible        string         `json:"visible_address"` // "" = the same
	VisibleGateway string         `json:"visible_gateway"`
	MAC            string         `json:"mac"`
	Gateway        string         `json:"gateway"`  // "" = none
	Gateway6       string         `json:"gateway6"` // "" = none
	Metric         int            `json:"metric"`
	State          netvm.VifState `json:"state"`
	Since          int64          `json:"since"`
}

// JSON is a status as JSON shows it.
func JSON(s netvm.Status) StatusJSON {
	return StatusJSON{
		Version: s.Version, State: s.State, NMRunning: s.NMRunning, Served: s.Served, PortalURL: s.PortalURL,
		Uplinks: each(s.Uplinks, uplinkJSON), DNSJSON: JSONOfDNS(s),
		Backend: s.Backend, Vifs: JSONOfVifs(s.Vifs), Problems: each(s.Problems, func(p string) string { return p }),
	}
}

// JSONOfDNS is the part about AppVM DNS.
func JSONOfDNS(s netvm.Status) DNSJSON {
	return DNSJSON{
		Source: s.DNSSource, Reason: s.DNSReason,
		Servers: each(s.DNSServers, func(r netvm.Resolver) string { return r.Addr.String() }),
		Dropped: each(s.DNSDropped, func(d netvm.Dropped) DroppedJSON { return DroppedJSON{d.Addr.String(), d.Reason} }),
		Overrides: each(s.DNSOverrides, func(o netvm.Override) OverrideJSON {
			return OverrideJSON{each(o.Servers, netip.Addr.String), o.Persistent, o.By, micros(o.Since)}
		}),
		Targets: JSONOfTargets(s.DNSTargets), ChangedAt: micros(s.ChangedAt), ApplyTime: s.ApplyTime.Microseconds(),
	}
}

// OutcomeJSON is what came of a command that steers, and the part about AppVM DNS as it is then.
type OutcomeJSON struct {
	Changed bool `json:"changed"`
	DNSJSON
}

// JSONOfTargets is the list dns_targets.
func JSONOfTargets(targets []netvm.Target) []TargetJSON {
	return each(targets, func(t netvm.Target) TargetJSON {
		return TargetJSON{t.Virtual.String(), words.Address(t.Resolver.Addr, "")}
	})
}

// JSONOfVifs is the list vifs.
func JSONOfVifs(vifs []netvm.Vif) []VifJSON {
	return each(vifs, func(v netvm.Vif) VifJSON {
		return VifJSON{
			Name: v.Name, DomID: v.DomID, Addresses: each(v.Addresses, netip.Addr.String),
			Visible: words.Address(v.Visible, ""), VisibleGateway: words.Address(v.VisibleGateway, ""), MAC: v.MAC,
			Gateway: words.Address(v.Gateway, ""), Gateway6: words.Address(v.Gateway6, ""), Metric: v.Metric, State: v.State, Since: micros(v.Since),
		}
	})
}

func uplinkJSON(u netvm.Uplink) UplinkJSON {
	return UplinkJSON{
		ID: u.ID, Type: u.Type, Interface: u.Interface, SSID: u.SSID, Strength: u.Strength,
		Addresses: each(u.Addresses, netip.Prefix.String), Gateway: words.Address(u.Gateway, ""), VPN: u.VPN, Metered: u.Metered,
	}
}

// each converts a list; the result is never null in JSON.
func each[From, To any](items []From, convert func(From) To) []To {
	out := make([]To, len(items))
	for i, item := range items {
		out[i] = convert(item)
	}
	return out
}

// micros are microseconds since the epoch; 0 = never.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}
