// Package words puts values of a netvm into words that more than one program shows: netvmctl in a terminal, the tray in a
// menu. It is pure. Names from outside are quoted; whoever shows a text makes it harmless first.
package words

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"netvmd/internal/netvm"
)

// Arrow leads from an address to where it is translated.
const Arrow = " → "

// technologies are the words for NetworkManager's connection types (nm-settings, connection.type).
var technologies = map[string]string{
	"802-3-ethernet": "Ethernet", "802-11-wireless": "Wi-Fi", "gsm": "mobile", "cdma": "mobile", "bluetooth": "Bluetooth",
	"pppoe": "DSL", "vpn": "VPN", "wireguard": "WireGuard", "tun": "tunnel",
	netvm.TypeNetVM: "another netvm",
}

// Technology is the word for what an uplink is made of.
func Technology(u netvm.Uplink) string {
	word := cmp.Or(technologies[u.Type], u.Type, "uplink")
	if IsVPN(u) && u.Type != "vpn" {
		word += " VPN"
	}
	return word
}

// IsVPN tells whether an uplink is a VPN. NetworkManager says so of its plugins' alone, and not of WireGuard.
func IsVPN(u netvm.Uplink) bool { return u.VPN || u.Type == "wireguard" }

// Through names an uplink as people do: a Wi-Fi by its network, everything else by NetworkManager's connection. There is one
// netvm above at most.
func Through(u netvm.Uplink) string {
	if u.Type == netvm.TypeNetVM {
		return Technology(u)
	}
	return Technology(u) + " " + Quoted(cmp.Or(u.SSID, u.ID, u.Interface))
}

// WayOut names the primary uplink and, beside it, a VPN or what the VPN runs over.
func WayOut(uplinks []netvm.Uplink) string {
	if len(uplinks) == 0 {
		return ""
	}
	first := uplinks[0]
	for _, u := range uplinks[1:] {
		switch {
		case IsVPN(first) && !IsVPN(u):
			return Through(first) + " over " + Through(u)
		case !IsVPN(first) && IsVPN(u):
			return Through(first) + " and " + Through(u)
		}
	}
	return Through(first)
}

// List joins addresses.
func List[T fmt.Stringer](items []T) string {
	words := make([]string, len(items))
	for i, item := range items {
		words[i] = item.String()
	}
	return strings.Join(words, ", ")
}

// Address is an address, or what stands for none.
func Address(a netip.Addr, none string) string {
	if !a.IsValid() {
		return none
	}
	return a.String()
}

// Count says how many there are of something that takes an s.
func Count[N int | uint64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Stamp says when something was: the time of today, or the day.
func Stamp(t, now time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	t, now = t.Local(), now.Local()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format("2006-01-02 15:04")
}

// Moment is stamp and, within a day, how long ago that was.
func Moment(t, now time.Time) string {
	ago := now.Sub(t)
	if t.IsZero() || ago < 0 || ago >= 24*time.Hour {
		return Stamp(t, now)
	}
	return fmt.Sprintf("%s (%s ago)", Stamp(t, now), roughly(ago))
}

func roughly(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	default:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
}

// Took says how long something took, to two digits or so.
func Took(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	default:
		return fmt.Sprintf("%.1f s", ms/1000)
	}
}

// Size says a number of bytes.
func Size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[unit])
}
