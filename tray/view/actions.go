package view

import "netvmd/internal/netvm"

// captions say what an action does, and that it is under way.
var captions = map[Action]struct{ idle, doing string }{
	Refresh:    {"Refresh DNS", "Refreshing DNS …"},
	Edit:       {"Edit connections", "Opening the connection editor …"},
	Login:      {"Log in to the captive portal", "Opening the captive portal …"},
	CopyReport: {"Copy a diagnostic report", "Copying a diagnostic report …"},
	SaveReport: {"Save a diagnostic report", "Saving a diagnostic report …"},
	Quit:       {"Quit", "Quitting …"},
}

// actionRows are the actions that are always there, and what the last one came to.
func actionRows(k Known) []Row {
	var outcome Row
	if k.Outcome != "" {
		outcome = say("%s", k.Outcome)
	}
	return []Row{
		action(k, Refresh), action(k, Edit), action(k, CopyReport), action(k, SaveReport), outcome, action(k, Quit),
	}
}

// loginRows are the way into a captive portal while one waits, and its address, which a person may open in an AppVM as well.
func loginRows(k Known) (login, address Row) {
	if !k.Running || k.Status.State != netvm.Portal || !k.Status.NMRunning {
		return Row{}, Row{}
	}
	if k.Status.PortalURL != "" {
		address = say("%sor open %s in an AppVM", indent, k.Status.PortalURL)
	}
	return action(k, Login), address
}

// action is the row of one. One at a time is under way; to quit is possible always.
func action(k Known, a Action) Row {
	text := captions[a].idle
	reason := hindrance(k, a)
	switch {
	case k.Doing == a:
		text = captions[a].doing
	case reason != "":
		text += ": " + reason
	}
	busy := k.Doing != None && a != Quit
	return Row{Text: safe(text), Action: a, Disabled: busy || reason != ""}
}

// hindrance is why an action cannot be done; "" = it can.
func hindrance(k Known, a Action) string {
	if reason := k.Hindered[a]; reason != "" {
		return reason
	}
	switch {
	case a == Refresh && !k.Running:
		return "netvmd is not running"
	case a == Edit && k.Running && !k.Status.NMRunning:
		return "NetworkManager is not running"
	case a == Login && k.Status.PortalURL == "":
		return "its address is not known"
	}
	return ""
}
