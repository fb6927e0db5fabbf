package doctor

import (
	"context"
	"slices"
	"strings"

	"netvmd/internal/vif"
)

// vifs are what records, kernel and firewall say of them.
type vifs struct{ vif.Inspection }

func readVifs(_ context.Context, m *machine) (vifs, error) {
	r, err := m.rules()
	return vifs{r.vifs}, err
}

func (v vifs) judge() finding {
	var faults []string
	for name, of := range v.Faults {
		faults = append(faults, name+": "+strings.Join(of, ", "))
	}
	slices.Sort(faults)
	switch {
	case len(faults) > 0:
		return fail(strings.Join(faults, "; "), "Run: systemctl restart netvmd (it mends them, or says why not)")
	case len(v.Unrecorded) > 0:
		return warn(strings.Join(v.Unrecorded, ", ")+": not set up by vif-route-netvm",
			"Detach the card and attach it again, with script=vif-route-netvm")
	case len(v.Vifs) == 0:
		return fine("there is none")
	}
	return fine("%d vifs, each as its record says", len(v.Vifs))
}

// Where Xen looks for hotplug scripts, and what ours is called there.
const (
	scriptsDir = "/etc/xen/scripts/"
	ownScript  = "vif-route-netvm"
)

// hotplug is whether Xen can run our script.
type hotplug struct{ xen, there, executable bool }

func readHotplug(_ context.Context, m *machine) (h hotplug, err error) {
	if h.xen, err = m.onXen(); err != nil {
		return h, err
	}
	if h.there, err = m.exists(scriptsDir + ownScript); err != nil {
		return h, err
	}
	h.executable, err = m.executable(scriptsDir + ownScript)
	return h, err
}

func (h hotplug) judge() finding {
	const path, link = scriptsDir + ownScript, "Run: ln -sf /usr/lib/netvmd/" + ownScript + " " + scriptsDir + ownScript
	switch {
	case !h.there && h.xen:
		return fail(path+" is missing: no AppVM's card comes up", link)
	case !h.there:
		return warn(path+" is missing, but this is no domain of Xen", link)
	case !h.executable:
		return fail(path+" cannot be run", "Run: chmod 755 "+path)
	}
	return fine("%s can be run", path)
}
