package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"netvmd/internal/firewall"
	"netvmd/internal/qubes"
)

// service is whether this domain is to run netvmd.
type service struct {
	qubes, on bool
	turnOn    string // how dom0 switches it on
}

func readService(ctx context.Context, m *machine) (s service, err error) {
	if s.qubes, err = m.domain().Is(); err != nil || !s.qubes {
		return s, err
	}
	s.on, err = m.domain().Runs(qubes.Netvmd)
	if !s.on {
		s.turnOn = m.domain().TurnOn(ctx, qubes.Netvmd)
	}
	return s, err
}

func (s service) judge() finding {
	switch {
	case !s.qubes:
		return fine("this is no domain of Qubes: netvmd starts where its units are enabled")
	case !s.on:
		return fail("netvmd is off in this domain of Qubes: its units do not start, and Qubes' own scripts do the work", s.turnOn)
	}
	return fine("dom0 has switched %s on", qubes.Netvmd)
}

// qubesScript is the hotplug script that Qubes' own toolstack names for each card.
const qubesScript = "vif-route-qubes"

// qubesHotplug is whether that is there, and whether it is ours: by a link, or by netvmd-vifs.service.
type qubesHotplug struct {
	xen, there, ours bool
	service          service
}

func readQubesHotplug(ctx context.Context, m *machine) (q qubesHotplug, err error) {
	if q.xen, err = m.onXen(); err != nil {
		return q, err
	}
	if q.service, err = readService(ctx, m); err != nil {
		return q, err
	}
	q.there, q.ours, err = m.isOurs(scriptsDir + qubesScript)
	return q, err
}

// isOurs tells whether a script is there, and whether it is our own, by a link or by a mount over it.
func (m *machine) isOurs(script string) (there, ours bool, err error) {
	theirs, err := os.Stat(m.path(script))
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	own, err := os.Stat(m.path(scriptsDir + ownScript))
	if errors.Is(err, fs.ErrNotExist) {
		return true, false, nil
	}
	return true, err == nil && os.SameFile(theirs, own), err
}

func (q qubesHotplug) judge() finding {
	const theirs = scriptsDir + qubesScript
	switch {
	case q.ours:
		return fine("%s is netvmd's: cards whose toolstack names it are netvmd's too", theirs)
	case !q.there && q.xen && !q.service.qubes:
		return fine("there is none; for guests that name it: ln -s /usr/lib/netvmd/%s %s", ownScript, theirs)
	case !q.there:
		return fine("there is none")
	case q.service.qubes && !q.service.on:
		return fine("it is Qubes' own, as netvmd is off here")
	case q.service.qubes:
		return fail(theirs+" is Qubes' own, and tells netvmd nothing: its rules drop what such a card sends",
			"Run: systemctl restart netvmd-vifs, and detach and attach the AppVMs' cards again")
	}
	return warn(theirs+" is another program's: cards whose toolstack names it are not netvmd's",
		"Name script="+ownScript+" in the guests' configurations")
}

// The scripts of Qubes that write DNS rules, and the units that run them: the dispatcher runs the hook, which runs the
// other one; at boot qubes-network does.
const (
	qubesHook      = "/etc/NetworkManager/dispatcher.d/qubes-nmhook"
	qubesDNAT      = "/usr/lib/qubes/qubes-setup-dnat-to-ns"
	dispatcherUnit = "NetworkManager-dispatcher.service"
	networkUnit    = "qubes-network.service"
)

// takeovers are the files over which a drop-in of ours lays another that does nothing, within the unit alone, while the
// service netvmd is on.
var takeovers = []struct{ unit, script string }{
	{dispatcherUnit, qubesHook}, {dispatcherUnit, qubesDNAT}, {networkUnit, qubesDNAT},
}

// dropIn is the name of these drop-ins.
const dropIn = "30-netvmd.conf"

// qubesHooks are the scripts of Qubes, each with the unit that runs it beside netvmd.
type qubesHooks struct {
	service service
	there   bool     // one of them can run
	beside  []string // such as "/a in b.service": netvmd has not taken these over
	masked  []string // drop-ins of ours that the admin has masked
	absent  []string // drop-ins of ours that are not installed
	unmade  []string // what a drop-in of ours would lay over them, and is not there
}

func readQubesHooks(ctx context.Context, m *machine) (q qubesHooks, err error) {
	if q.service, err = readService(ctx, m); err != nil {
		return q, err
	}
	for _, t := range takeovers {
		is, err := m.executable(t.script)
		if err != nil {
			return q, err
		}
		if !is {
			continue
		}
		q.there = true
		if err := q.look(ctx, m, t.unit, t.script); err != nil {
			return q, err
		}
	}
	return q, nil
}

// look finds out whether the unit finds something that does nothing in the script's place, and else why not.
func (q *qubesHooks) look(ctx context.Context, m *machine, name, script string) error {
	u, err := m.unit(ctx, name)
	if err != nil || u.load == "not-found" {
		return err
	}
	source, err := m.laidOver(ctx, u, script)
	if err != nil {
		return err
	}
	if source == "" {
		q.beside = append(q.beside, script+" in "+name)
		return q.whyNot(m, name)
	}
	there, err := m.exists(source)
	if err == nil && !there {
		q.beside, q.unmade = append(q.beside, script+" in "+name), append(q.unmade, source)
	}
	return err
}

// laidOver is the file that a unit finds in another's place, "" for none.
func (m *machine) laidOver(ctx context.Context, u unit, path string) (string, error) {
	// Whether a missing source is ignored, and flags (org.freedesktop.systemd1(5)), are of no interest.
	var binds []struct {
		Source, Destination string
		IgnoreMissing       bool
		Flags               uint64
	}
	if err := m.property(ctx, systemd, u.path, systemd+".Service", "BindReadOnlyPaths", &binds); err != nil {
		return "", err
	}
	for _, b := range binds {
		if b.Destination == path {
			return b.Source, nil
		}
	}
	return "", nil
}

// whyNot finds out whether the unit's drop-in of ours is there.
func (q *qubesHooks) whyNot(m *machine, unit string) error {
	below := "/systemd/system/" + unit + ".d/" + dropIn
	target, err := os.Readlink(m.path("/etc" + below))
	if err == nil && target == "/dev/null" && !slices.Contains(q.masked, "/etc"+below) {
		q.masked = append(q.masked, "/etc"+below)
	}
	there, err := m.exists("/usr/lib" + below)
	if err == nil && !there && !slices.Contains(q.absent, "/usr/lib"+below) {
		q.absent = append(q.absent, "/usr/lib"+below)
	}
	return err
}

func (q qubesHooks) judge() finding {
	found := "not taken over, so that it writes DNS rules beside netvmd's: " + strings.Join(q.beside, ", ")
	switch {
	case !q.there:
		return fine("there are none that could run")
	case q.service.qubes && !q.service.on:
		return fine("they run, as netvmd is off here")
	case len(q.beside) == 0:
		return fine("netvmd has taken over: they do not run")
	case !q.service.qubes:
		return warn(found, "Remove Qubes' agent (qubes-core-agent-networking): this is no domain of Qubes")
	case len(q.masked) > 0:
		return warn(found, "Run: rm "+strings.Join(q.masked, " ")+" && systemctl daemon-reload")
	case len(q.absent) > 0:
		return warn(found, "Install netvmd again: "+strings.Join(q.absent, " and ")+" is missing")
	case len(q.unmade) > 0:
		return warn(found+": "+strings.Join(slices.Compact(q.unmade), " and ")+" is missing", "Run: systemctl restart netvmd-firewall")
	}
	return warn(found, "Run: systemctl daemon-reload")
}

// qubesDNS are translations of Qubes' own scripts, which ours stand before.
type qubesDNS struct {
	count int
	hooks qubesHooks // who writes them
}

func readQubesDNS(ctx context.Context, m *machine) (q qubesDNS, err error) {
	if q.count, err = firewall.QubesTranslations(ctx); err != nil || q.count == 0 {
		return q, err
	}
	q.hooks, err = readQubesHooks(ctx, m)
	return q, err
}

func (q qubesDNS) judge() finding {
	theirs := fmt.Sprintf("table ip qubes holds DNS rules (%d)", q.count)
	switch {
	case q.count == 0:
		return fine("none: netvmd alone translates")
	case q.hooks.service.qubes && !q.hooks.service.on:
		return fine("%s, as netvmd is off here", theirs)
	case len(q.hooks.beside) > 0:
		return warn(theirs+", written beside netvmd's, which come first", "Mend what is said of the DNS scripts of Qubes")
	}
	return fine("%s, of before netvmd took over: netvmd's own come first", theirs)
}
