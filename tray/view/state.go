package view

import (
	"strings"

	"netvmd/internal/netvm"
	"netvmd/internal/words"
)

// mostProblems bounds how many problems are listed.
const mostProblems = 12

// title says what the icon says, in words.
func title(k Known) string {
	parts := []string{"netvm: " + state(k)}
	if k.Running {
		_, dns := words.AppVMDNS(k.Status)
		parts = append(parts, strings.TrimSuffix(dns, "."))
	}
	if n := degraded(k.Status.Vifs); n > 0 {
		parts = append(parts, words.Count(n, "vif")+" degraded")
	}
	if n := len(k.Status.Problems); n > 0 {
		parts = append(parts, words.Count(n, "problem"))
	}
	return safe(strings.Join(parts, "; "))
}

// state is the verdict. What matters most stands first, as a long name may push the rest out.
func state(k Known) string {
	switch s := k.Status; {
	case !k.Running:
		return "netvmd is not running; the rules in the kernel stay in force"
	case s.Unmanaged():
		return "NetworkManager is not running"
	default:
		return reach(s)
	}
}

func reach(s netvm.Status) string {
	through := func(verdict, preposition string) string {
		if len(s.Uplinks) == 0 {
			return verdict
		}
		return verdict + " " + preposition + " " + words.WayOut(s.Uplinks)
	}
	switch s.State {
	case netvm.Online:
		return through("Online", "through")
	case netvm.Connecting:
		return through("Connecting", "through")
	case netvm.Limited:
		return through("No Internet", "through")
	case netvm.Portal:
		return through("Captive portal", "at")
	case netvm.Offline:
		return "Offline"
	}
	return "In a state that this tray does not know (" + words.Quoted(string(s.State)) + ")"
}

// stateRows are the verdict and what is to be done about it.
func stateRows(k Known) []Row {
	login, address := loginRows(k)
	problems := under(words.Count(len(k.Status.Problems), "problem"), sentences(k.Status.Problems, mostProblems))
	return []Row{say("%s", state(k)), login, address, problems}
}
