package nmhook

import (
	"context"
	"fmt"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
)

const (
	nmPath         = godbus.ObjectPath("/org/freedesktop/NetworkManager")
	nmDNSPath      = nmPath + "/DnsManager"
	nmDNSInterface = nmName + ".DnsManager"
	resolvedPath   = godbus.ObjectPath("/org/freedesktop/resolve1")
	resolvedIface  = resolvedName + ".Manager"
	loginPath      = godbus.ObjectPath("/org/freedesktop/login1")
	loginIface     = loginName + ".Manager"
	accessPoint    = nmName + ".AccessPoint"
)

// uplinkProperties are those that a View is made of. The others change without any meaning to us: with every
// scan, with every vif that comes (NetworkManager lists it in Devices), with every byte.
var uplinkProperties = map[string][]string{
	nmName:                        {"State", "Connectivity", "PrimaryConnection", "ActiveConnections", "Metered", "Startup", portalProperty},
	nmName + ".Connection.Active": {"Id", "Type", "State", "Vpn", "Devices", "SpecificObject", "Ip4Config", "Ip6Config"},
	nmName + ".Device":            {"IpInterface", "Interface", "Metered"},
	nmName + ".IP4Config":         {"AddressData", "Gateway"},
	nmName + ".IP6Config":         {"AddressData", "Gateway"},
	accessPoint:                   {"Ssid", "Strength"},
}

// matchRules are the signals that the bus is asked for, each as narrow as the bus can filter.
func matchRules() [][]godbus.MatchOption {
	changed := func(sender string, where godbus.MatchOption, iface string) []godbus.MatchOption {
		return []godbus.MatchOption{
			godbus.WithMatchSender(sender), where,
			godbus.WithMatchInterface(busName + ".Properties"), godbus.WithMatchMember("PropertiesChanged"),
			godbus.WithMatchArg(0, iface),
		}
	}
	rules := [][]godbus.MatchOption{
		changed(nmName, godbus.WithMatchObjectPath(nmDNSPath), nmDNSInterface),
		changed(nmName, godbus.WithMatchObjectPath(nmPath), nmName),
		changed(resolvedName, godbus.WithMatchObjectPath(resolvedPath), resolvedIface),
		{
			godbus.WithMatchSender(loginName), godbus.WithMatchObjectPath(loginPath),
			godbus.WithMatchInterface(loginIface), godbus.WithMatchMember("PrepareForSleep"),
		},
	}
	for folder, iface := range map[godbus.ObjectPath]string{
		"/ActiveConnection": ".Connection.Active",
		"/Devices":          ".Device",
		"/IP4Config":        ".IP4Config",
		"/IP6Config":        ".IP6Config",
	} {
		rules = append(rules, changed(nmName, godbus.WithMatchPathNamespace(nmPath+folder), nmName+iface))
	}
	for _, name := range []string{nmName, resolvedName, loginName} {
		rules = append(rules, []godbus.MatchOption{
			godbus.WithMatchSender(busName), godbus.WithMatchObjectPath("/org/freedesktop/DBus"),
			godbus.WithMatchInterface(busName), godbus.WithMatchMember("NameOwnerChanged"),
			godbus.WithMatchArg(0, name),
		})
	}
	return rules
}

// dispatch looks at one signal. The rules bind only what the bus broadcasts: anyone may address a signal to
// us, so the sender is checked against the owner of the name as the bus told it.
func (s *session) dispatch(signal *godbus.Signal, now time.Time) {
	p := pending{arrived: now, signals: 1}
	switch {
	case signal.Sender == "":
		return
	case signal.Sender == busName && signal.Name == ownerChanged:
		s.ownerChanged(signal, p)
	case signal.Sender == s.owner(nmName):
		s.fromNetworkManager(signal, p)
	case signal.Sender == s.owner(resolvedName):
		if signal.Path == resolvedPath && changes(signal, resolvedIface, "DNS") {
			s.board.mark(sourceResolved, p)
		}
	case signal.Sender == s.owner(loginName):
		if wokeUp(signal) {
			s.log.Info("woken from sleep, reading everything again")
			s.board.markAll(p)
		}
	default:
		s.log.Debug("signal of a stranger ignored", "sender", signal.Sender, "path", signal.Path, "signal", signal.Name)
	}
}

// wokeUp recognizes logind's PrepareForSleep(false), which is sent after resuming (org.freedesktop.login1(5)).
func wokeUp(signal *godbus.Signal) bool {
	if signal.Path != loginPath || signal.Name != loginIface+".PrepareForSleep" || len(signal.Body) != 1 {
		return false
	}
	asleep, ok := signal.Body[0].(bool)
	return ok && !asleep
}

func (s *session) fromNetworkManager(signal *godbus.Signal, p pending) {
	switch {
	case signal.Path == nmDNSPath && changes(signal, nmDNSInterface, "Configuration"):
		s.carried(signal, p)
	case signal.Path == nmPath && changes(signal, nmName, "Startup"):
		s.board.mark(sourceNMDNS, p) // an empty configuration counts from now on
		s.board.mark(sourceUplinks, p)
	case strings.HasPrefix(string(signal.Path), string(nmPath)) && s.changesUplink(signal):
		s.board.mark(sourceUplinks, p)
	}
}

func (s *session) changesUplink(signal *godbus.Signal) bool {
	if len(signal.Body) == 0 {
		return false
	}
	iface, ok := signal.Body[0].(string)
	if !ok {
		return false
	}
	if iface == accessPoint && !s.followsPoint(signal.Path) {
		return false
	}
	return changes(signal, iface, uplinkProperties[iface]...)
}

// changes tells whether a signal is PropertiesChanged(interface, changed, invalidated) for one of the names.
func changes(signal *godbus.Signal, iface string, names ...string) bool {
	if signal.Name != propertiesChanged || len(signal.Body) != 3 || signal.Body[0] != any(iface) {
		return false
	}
	changed, ok := signal.Body[1].(map[string]godbus.Variant)
	if !ok {
		return false
	}
	invalidated, ok := signal.Body[2].([]string)
	if !ok {
		return false
	}
	for _, name := range names {
		if _, ok := changed[name]; ok {
			return true
		}
		for _, i := range invalidated {
			if i == name {
				return true
			}
		}
	}
	return false
}

// ownerChanged follows NameOwnerChanged(name, old, new).
func (s *session) ownerChanged(signal *godbus.Signal, p pending) {
	if len(signal.Body) != 3 {
		return
	}
	name, ok1 := signal.Body[0].(string)
	owner, ok2 := signal.Body[2].(string)
	if ok1 && ok2 {
		s.setOwner(name, owner, p)
	}
}

// setOwner notes who owns a name now, and has everything of the new owner read.
func (s *session) setOwner(name, owner string, p pending) {
	s.mu.Lock()
	changed := s.owners[name] != owner
	s.owners[name] = owner
	s.mu.Unlock()
	if changed {
		s.log.Info("name on the system bus has another owner", "name", name, "owner", owner)
	}
	switch name {
	case nmName:
		if changed {
			s.nm.restarted()
		}
		s.board.mark(sourceNMDNS, p)
		s.board.mark(sourceUplinks, p)
	case resolvedName:
		s.board.mark(sourceResolved, p)
	}
}

// followPoints asks for the signals of the access points in use, and of no other: every neighbour's signal
// strength changes with every scan.
func (s *session) followPoints(ctx context.Context, paths []godbus.ObjectPath) error {
	wanted := map[godbus.ObjectPath]bool{}
	for _, path := range paths {
		wanted[path] = true
	}
	s.mu.Lock()
	old := s.points
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	for path := range wanted {
		if !old[path] {
			if err := s.conn.AddMatchSignalContext(ctx, pointRule(path)...); err != nil {
				return fmt.Errorf("subscribe to access point %s: %w", path, err)
			}
			s.board.kickOnly(sourceUplinks) // it was read before it could announce a change
		}
	}
	for path := range old {
		if !wanted[path] {
			if err := s.conn.RemoveMatchSignalContext(ctx, pointRule(path)...); err != nil {
				return fmt.Errorf("unsubscribe from access point %s: %w", path, err)
			}
		}
	}
	s.mu.Lock()
	s.points = wanted
	s.mu.Unlock()
	return nil
}

func pointRule(path godbus.ObjectPath) []godbus.MatchOption {
	return []godbus.MatchOption{
		godbus.WithMatchSender(nmName), godbus.WithMatchObjectPath(path),
		godbus.WithMatchInterface(busName + ".Properties"), godbus.WithMatchMember("PropertiesChanged"),
		godbus.WithMatchArg(0, accessPoint),
	}
}

func (s *session) followsPoint(path godbus.ObjectPath) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.points[path]
}

// running notes in a view whether the name behind a source has an owner.
func (s *session) running(v *netvm.View) {
	v.NetworkManager.Running = s.owner(nmName) != ""
	v.Resolved.Running = s.owner(resolvedName) != ""
}
