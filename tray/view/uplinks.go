package view

import (
	"fmt"
	"net/netip"
	"unicode"
	"unicode/utf8"

	"netvmd/internal/netvm"
	"netvmd/internal/words"
)

const (
	uplinkPlaces  = 4
	mostAddresses = 8 // of one uplink or vif
)

// uplinkRows are the uplinks, and a row for what else is to say of them.
func uplinkRows(k Known) []Row {
	var rows []Row
	for _, u := range k.Status.Uplinks[:min(len(k.Status.Uplinks), uplinkPlaces)] {
		rows = append(rows, uplink(u, k.Routes))
	}
	return append(places(rows, uplinkPlaces), uplinkNote(k))
}

func uplinkNote(k Known) Row {
	n := len(k.Status.Uplinks)
	switch {
	case !k.Running:
		return say("Uplinks are not known without netvmd")
	case n == 0 && k.Status.Unmanaged():
		return say("Uplinks are not known without NetworkManager")
	case k.Status.Unmanaged():
		return say("as NetworkManager said last")
	case n == 0:
		return say("No uplink is active")
	case n > uplinkPlaces:
		return say("and %s", words.Count(n-uplinkPlaces, "more uplink"))
	}
	return Row{}
}

func uplink(u netvm.Uplink, routes []netvm.Route) Row {
	heading := words.Through(u)
	rows := []Row{say("Type %s", words.Technology(u))}
	if u.SSID != "" {
		heading += fmt.Sprintf(", %d %%", u.Strength)
		rows = append(rows, say("Network %s", words.Quoted(u.SSID)), say("Signal %d %%", u.Strength))
	}
	if u.ID != "" {
		rows = append(rows, say("Connection %s", words.Quoted(u.ID)))
	}
	if u.Interface != "" {
		rows = append(rows, say("Interface %s", u.Interface))
	}
	rows = append(rows, each(u.Addresses, mostAddresses, func(a netip.Prefix) Row { return say("Address %s", a) })...)
	if u.Gateway.IsValid() {
		rows = append(rows, say("Gateway %s", u.Gateway))
	}
	if u.Metered {
		rows = append(rows, say("Metered"))
	}
	// What is read while the menu is open comes last, so that nothing moves under the pointer.
	if r, found := defaultRoute(routes, u.Interface); found {
		rows = append(rows, say("Default route, metric %d", r.Metric))
	}
	return under(capital(heading), rows)
}

// capital begins a row, as "mobile" and "tunnel" are words for the middle of a sentence.
func capital(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	if first == utf8.RuneError {
		return s
	}
	return string(unicode.ToUpper(first)) + s[size:]
}

// defaultRoute is the preferred one of those over an interface.
func defaultRoute(routes []netvm.Route, name string) (best netvm.Route, found bool) {
	for _, r := range routes {
		if r.Interface != name || !r.Genmask.IsUnspecified() {
			continue
		}
		if !found || r.Metric < best.Metric {
			best, found = r, true
		}
	}
	return best, found
}
