package view

import (
	"slices"

	"netvmd/internal/netvm"
	"netvmd/internal/words"
)

// The signal of a Wi-Fi below which it is weak, and below which it is fair, in percent.
const (
	fairStrength = 34
	goodStrength = 67
)

// reachIcons are the icons of the states in which the Internet is not reached.
var reachIcons = map[netvm.State]Icon{
	netvm.Offline: Offline, netvm.Connecting: Connecting, netvm.Limited: Limited, netvm.Portal: Portal,
}

// icon is the first of these that is so: what must be known is missing; the Internet is not reached; AppVMs have no names
// of it; something is wrong that does not stop them; through what they are online.
func icon(k Known) Icon {
	s := k.Status
	switch {
	case !k.Running:
		return Stopped
	case s.Unmanaged():
		return Unmanaged
	case reachIcons[s.State] != "":
		return reachIcons[s.State]
	}
	service, _ := words.AppVMDNS(s)
	switch {
	case service == words.Unserved, service == words.Unled:
		return Unserved
	case service == words.PartlyServed, s.State != netvm.Online, degraded(s.Vifs) > 0, len(s.Problems) > 0:
		return Problem
	}
	return carrier(s.Uplinks)
}

// carrier is the icon of what carries everything. A VPN counts wherever it stands: NetworkManager names as the primary
// connection the one that the VPN's packets take, also when the VPN has the default route (its D-Bus API, PrimaryConnection).
func carrier(uplinks []netvm.Uplink) Icon {
	if slices.ContainsFunc(uplinks, words.IsVPN) {
		return VPN
	}
	if len(uplinks) == 0 {
		return Wired
	}
	switch first := uplinks[0]; first.Type {
	case "802-11-wireless":
		return wireless(first.Strength)
	case "gsm", "cdma":
		return Mobile
	}
	return Wired
}

func wireless(strength uint8) Icon {
	switch {
	case strength < fairStrength:
		return WirelessWeak
	case strength < goodStrength:
		return WirelessFair
	}
	return WirelessGood
}
