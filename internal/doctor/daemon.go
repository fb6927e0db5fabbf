package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"netvmd/dbus"
)

// bus is why there is none.
type bus struct{ err error }

func readBus(_ context.Context, m *machine) (bus, error) {
	_, err := m.bus()
	return bus{err}, nil
}

func (b bus) judge() finding {
	if b.err != nil {
		return fail(b.err.Error()+": netvmd sees no uplink, and nobody sees netvmd", "Run: systemctl start dbus")
	}
	return fine("it answers")
}

// daemon is whether netvmd runs, and which.
type daemon struct {
	version, ours string
	err           error
	service       service
}

func readDaemon(ctx context.Context, m *machine) (daemon, error) {
	if _, err := m.bus(); err != nil {
		return daemon{}, err
	}
	service, err := readService(ctx, m)
	if err != nil {
		return daemon{}, err
	}
	status, err := m.status()
	return daemon{status.Version, m.version, err, service}, nil
}

func (d daemon) judge() finding {
	switch {
	case errors.Is(d.err, dbus.ErrNotRunning) && d.service.qubes && !d.service.on:
		return fail("it does not run, as it is off in this domain of Qubes", d.service.turnOn)
	case errors.Is(d.err, dbus.ErrNotRunning):
		return fail("it does not run: AppVM DNS does not follow the uplink", "Run: systemctl start netvmd")
	case d.err != nil:
		return fail(d.err.Error(), "Run: systemctl restart netvmd")
	case d.version != d.ours:
		return warn(fmt.Sprintf("release %s runs, and %s is installed", d.version, d.ours), "Run: systemctl restart netvmd")
	}
	return fine("release %s runs", d.version)
}

// problems are what netvmd says itself, each with what to do.
type problems []string

func readProblems(_ context.Context, m *machine) (problems, error) {
	status, err := m.status()
	return status.Problems, err
}

func (p problems) judge() finding {
	if len(p) > 0 {
		return warn(strings.Join(p, " "), "Do what it says; netvmctl status shows whether that helped")
	}
	return fine("nothing")
}

// busPolicy is what lets netvmd have its name: a file, or it has the name already.
type busPolicy struct {
	path  string
	owned bool
}

func readBusPolicy(ctx context.Context, m *machine) (b busPolicy, err error) {
	for _, dir := range []string{"/etc", "/usr/local/share", "/usr/share"} {
		path := dir + "/dbus-1/system.d/" + dbus.Name + ".conf"
		if there, err := m.exists(path); there || err != nil {
			return busPolicy{path: path}, err
		}
	}
	b.owned, err = m.owned(ctx, dbus.Name)
	return b, err
}

func (b busPolicy) judge() finding {
	switch {
	case b.path != "":
		return fine("%s", b.path)
	case b.owned:
		return fine("it is somewhere: netvmd has its name")
	}
	return fail("no "+dbus.Name+".conf in /usr/share/dbus-1/system.d: the bus refuses netvmd its name",
		"Install netvmd again, and run: systemctl reload dbus")
}

// polkit is who else than root may refresh and override.
type polkit struct{ there, actions bool }

func readPolkit(ctx context.Context, m *machine) (p polkit, err error) {
	const name = "org.freedesktop.PolicyKit1"
	if p.actions, err = m.exists("/usr/share/polkit-1/actions/" + dbus.Name + ".policy"); err != nil {
		return p, err
	}
	if p.there, err = m.owned(ctx, name); err != nil || p.there {
		return p, err
	}
	var activatable []string
	err = m.call(ctx, busName, busPath, busName+".ListActivatableNames", &activatable)
	p.there = slices.Contains(activatable, name)
	return p, err
}

func (p polkit) judge() finding {
	switch {
	case !p.there:
		return fine("there is no polkit: root alone may refresh and override")
	case !p.actions:
		return warn("polkit does not know netvmd's actions: root alone may refresh and override",
			"Install netvmd again: /usr/share/polkit-1/actions/"+dbus.Name+".policy is missing")
	}
	return fine("polkit says who may refresh and override")
}
