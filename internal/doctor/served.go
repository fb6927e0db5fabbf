package doctor

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"netvmd/dbus"
	"netvmd/internal/parts"
	"netvmd/internal/store"
	"netvmd/internal/uplink"
)

// unitFolders are where units are installed (systemd.unit(5)).
var unitFolders = []string{"/etc/systemd/system/", "/usr/lib/systemd/system/", "/lib/systemd/system/"}

// installed tells whether a unit is there, also where no systemd runs.
func (m *machine) installed(unit string) (bool, error) {
	for _, folder := range unitFolders {
		if there, err := m.exists(folder + unit); there || err != nil {
			return there, err
		}
	}
	return false, nil
}

// runsNetvmd tells whether netvmd is this machine's, installed or started by hand.
func (m *machine) runsNetvmd(ctx context.Context) (bool, error) {
	if there, err := m.installed("netvmd.service"); there || err != nil {
		return there, err
	}
	running, err := m.owned(ctx, dbus.Name)
	if err != nil { // no bus, no netvmd on it
		return false, ctx.Err()
	}
	return running, nil
}

// links are the interfaces that lead to a netvm.
type links struct {
	all  []link
	none bool  // no other netvm serves this domain
	err  error // what the toolstack says makes no sense
	// off: in Qubes the service that sets them up is, and Qubes' own scripts do that.
	off    bool
	turnOn string // how dom0 switches it on
}

// link is one of them.
type link struct {
	name    string
	missing []string // what the kernel does not have as the store says
}

// uplinkService is the service with which our unit sets up the interface of a domain of Qubes.
const uplinkService = "netvm-uplink"

func readLinks(ctx context.Context, m *machine) (l links, err error) {
	specs, err := uplinkSpecs(ctx, m)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return l, err
	case err != nil || len(specs) == 0:
		return links{none: err == nil, err: err}, nil
	}
	setup := uplink.New(m.conf.RuntimeDir, m.conf.DNS.ResolvConf, m.log)
	for _, spec := range specs {
		missing, err := setup.Missing(spec)
		if err != nil {
			return l, err
		}
		l.all = append(l.all, link{spec.Interface, missing})
	}
	is, err := m.domain().Is()
	if err != nil || !is {
		return l, err
	}
	on, err := m.domain().Runs(uplinkService)
	if l.off = !on; l.off {
		l.turnOn = m.domain().TurnOn(ctx, uplinkService)
	}
	return l, err
}

// uplinkSpecs are what the store says of each interface that it configures, none where no other netvm serves this domain.
func uplinkSpecs(ctx context.Context, m *machine) (specs []uplink.Spec, err error) {
	names, err := uplink.Interfaces()
	if err != nil {
		return nil, err
	}
	from, err := store.Open(ctx, parts.StoreOptions(m.conf))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	for _, name := range names {
		spec, err := uplink.ReadSpec(ctx, from, name)
		switch {
		case err == nil:
			specs = append(specs, spec)
		case !errors.Is(err, store.ErrUnconfigured):
			return nil, err
		}
	}
	return specs, nil
}

func (l links) judge() finding {
	if l.err != nil {
		return fail(l.err.Error(), "Mend what the toolstack says of this domain's network")
	}
	if l.none {
		return fine("no other netvm serves this domain")
	}
	var names, faults []string
	remedy := ""
	for _, one := range l.all {
		names = append(names, one.name)
		if len(one.missing) > 0 {
			faults = append(faults, one.name+" is not as the toolstack says, it lacks: "+strings.Join(one.missing, ", "))
			remedy += " && systemctl restart netvm-uplink@" + one.name
		}
	}
	switch {
	case len(faults) > 0 && l.off:
		return warn(strings.Join(faults, "; ")+"; Qubes' own scripts set it up, as the service "+uplinkService+" is off", l.turnOn)
	case len(faults) > 0:
		return fail(strings.Join(faults, "; "), "Run: "+strings.TrimPrefix(remedy, " && "))
	}
	return fine("%s: as the toolstack says", strings.Join(names, ", "))
}
