package doctor

import (
	"context"
	"errors"
	"strings"

	godbus "github.com/godbus/dbus/v5"
)

const systemd = "org.freedesktop.systemd1"

var errNoSystemd = errors.New("systemd is not on this bus")

// unit is what systemd says of one, in its own words (org.freedesktop.systemd1(5)).
type unit struct {
	name string
	path godbus.ObjectPath
	load string // "loaded", "not-found", "masked", …
	file string // "enabled", "disabled", …
	// active is "active", "failed", …
	active string
	unmet  bool // it was to be started, and a condition of it did not hold
}

// unit asks systemd, which reads the unit's files where it has not done so yet.
func (m *machine) unit(ctx context.Context, name string) (unit, error) {
	u := unit{name: name}
	runs, err := m.owned(ctx, systemd)
	if err == nil && !runs {
		err = errNoSystemd
	}
	if err == nil {
		err = m.call(ctx, systemd, "/org/freedesktop/systemd1", systemd+".Manager.LoadUnit", &u.path, name)
	}
	if err != nil {
		return u, err
	}
	var met bool
	var looked uint64 // at its conditions, in µs since 1970; 0 = never
	for property, into := range map[string]any{
		"LoadState": &u.load, "UnitFileState": &u.file, "ActiveState": &u.active, "ConditionResult": &met, "ConditionTimestamp": &looked,
	} {
		if err := m.property(ctx, systemd, u.path, systemd+".Unit", property, into); err != nil {
			return u, err
		}
	}
	u.unmet = looked != 0 && !met && u.active == "inactive"
	return u, nil
}

// units are those that a netvm starts with.
type units struct {
	service service
	vifs    bool // there is a hotplug script of Qubes, for which ours is to stand
	all     []unit
}

func readUnits(ctx context.Context, m *machine) (u units, err error) {
	if u.service, err = readService(ctx, m); err != nil {
		return u, err
	}
	names := []string{"netvmd.service", "netvmd-firewall.service"}
	if u.service.qubes {
		names = append(names, vifsUnit)
		if u.vifs, err = m.exists(scriptsDir + qubesScript); err != nil {
			return u, err
		}
	}
	for _, name := range names {
		one, err := m.unit(ctx, name)
		if err != nil {
			return u, err
		}
		u.all = append(u.all, one)
	}
	return u, nil
}

// vifsUnit puts our hotplug script in the place of Qubes' own.
const vifsUnit = "netvmd-vifs.service"

// those are the names of the units for which something is so.
func (u units) those(is func(unit) bool) string {
	var names []string
	for _, one := range u.all {
		if is(one) {
			names = append(names, one.name)
		}
	}
	return strings.Join(names, " ")
}

// wanted tells whether the unit is to run in this domain.
func (u units) wanted(one unit) bool {
	return !u.service.qubes || u.service.on && (one.name != vifsUnit || u.vifs)
}

func (u units) judge() finding {
	enable, where := "Run: systemctl enable --now ", ""
	if u.service.qubes { // a domain made from a template keeps no unit's state
		enable, where = "Run in this domain's template: systemctl enable ", " in this domain's template"
	}
	if names := u.those(func(one unit) bool { return one.load == "not-found" }); names != "" {
		return fail("systemd does not know "+names, "Install netvmd again"+where+", and run: systemctl daemon-reload")
	}
	if names := u.those(func(one unit) bool { return strings.HasPrefix(one.file, "masked") }); names != "" {
		return warn("masked: "+names, "Run"+where+": systemctl unmask "+names)
	}
	if names := u.those(func(one unit) bool { return strings.HasSuffix(one.file, "-runtime") }); names != "" {
		return warn("enabled until the next boot alone: "+names, enable+names)
	}
	if names := u.those(func(one unit) bool { return one.file != "enabled" && one.file != "alias" }); names != "" {
		return warn("not enabled: "+names+": after a reboot the netvm is not what it is now", enable+names)
	}
	if names := u.those(func(one unit) bool { return one.active == "failed" }); names != "" {
		return fail("failed: "+names, "Look at the reason: journalctl -b -u "+strings.ReplaceAll(names, " ", " -u "))
	}
	if names := u.those(func(one unit) bool { return one.unmet && u.wanted(one) }); names != "" {
		return warn("enabled, and not started, as a condition did not hold: "+names, "Run: systemctl start "+names)
	}
	if u.service.qubes && !u.service.on {
		return fine("enabled, and not started, as netvmd is off in this domain of Qubes")
	}
	return fine("enabled: %s", u.those(func(unit) bool { return true }))
}
