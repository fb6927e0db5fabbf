// Package view says what the tray shows: a pure function from what is known of the netvm to an icon, a title and a
// menu. It does no I/O and knows no toolkit.
package view

import (
	"slices"
	"time"

	"netvmd/internal/netvm"
)

// Known is all that a view is made of.
type Known struct {
	Running  bool         // netvmd owns its name on the bus; if not, Status is empty
	Status   netvm.Status // as netvmd published it
	Traffic  []netvm.Traffic
	Routes   []netvm.Route     // the netvm's main routing table. Both are read while the menu is open; nil before
	Hindered map[Action]string // why an action cannot be done on this machine: a clause, such as "xdg-open is not installed"
	Doing    Action            // what is under way; None = nothing
	Outcome  string            // what the last action came to, one sentence; "" = none was done yet
	Now      time.Time
}

// Action is what a click on a row does.
type Action string

// The actions.
const (
	None       Action = ""
	Refresh    Action = "refresh"     // read every source again
	Edit       Action = "edit"        // open the connection editor
	Login      Action = "login"       // open the captive portal
	CopyReport Action = "copy-report" // a diagnostic report to the clipboard
	SaveReport Action = "save-report" // the same to a file
	Quit       Action = "quit"
)

// Icon is the name of a picture in packaging/icons, and of the icon in the hicolor theme.
type Icon string

// The icons: one a state that somebody must tell at a glance.
const (
	Stopped      Icon = "netvm-stopped"       // netvmd is not running
	Unmanaged    Icon = "netvm-unmanaged"     // NetworkManager is not running
	Offline      Icon = "netvm-offline"       // no uplink is active
	Connecting   Icon = "netvm-connecting"    // an uplink is being brought up
	Limited      Icon = "netvm-limited"       // an uplink, and no Internet beyond it
	Portal       Icon = "netvm-portal"        // a captive portal waits
	Unserved     Icon = "netvm-unserved"      // online, and AppVM DNS is refused: no virtual address is served
	Problem      Icon = "netvm-problem"       // online, and something is wrong: DNS partly served, a degraded vif, a problem
	Wired        Icon = "netvm-wired"         // online by Ethernet, and by what is none of the next
	WirelessWeak Icon = "netvm-wireless-weak" // online by Wi-Fi below 34 %
	WirelessFair Icon = "netvm-wireless-fair" // below 67 %
	WirelessGood Icon = "netvm-wireless-good"
	Mobile       Icon = "netvm-mobile" // online by a modem
	VPN          Icon = "netvm-vpn"    // online, a VPN on top
)

// Icons are all of them.
var Icons = []Icon{
	Stopped, Unmanaged, Offline, Connecting, Limited, Portal, Unserved, Problem,
	Wired, WirelessWeak, WirelessFair, WirelessGood, Mobile, VPN,
}

// Row is one row of a menu. Menus are shown by a library that can neither remove nor move a row, nor take a submenu away
// again. Hence the top level has the same rows at the same places always, of which those without a text are hidden; a
// submenu grows at its end; and a place that once had a submenu is either hidden or has one.
type Row struct {
	Text      string
	Action    Action // of a click; None: there is only something to read
	Disabled  bool   // shown, and not to be clicked
	Separator bool   // top level only
	Rows      []Row
}

// Shown is what the tray shows.
type Shown struct {
	Icon  Icon
	Title string // one line, for the window's name and for people who cannot see the icon
	Menu  []Row
}

// Of says what is shown of what is known. The same Known gives the same Shown.
func Of(k Known) Shown {
	return Shown{Icon: icon(k), Title: title(k), Menu: menu(k)}
}

// menu puts the sections together. Each of them has the same number of rows always, and shows one at least, so that no two
// separators ever touch.
func menu(k Known) []Row {
	return slices.Concat(
		stateRows(k), separator,
		uplinkRows(k), separator,
		dnsRows(k), separator,
		vifRows(k), separator,
		actionRows(k),
	)
}
