package doctor

import (
	"context"
	"fmt"
	"path/filepath"
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
	scriptsDir  = "/etc/xen/scripts/"
	ownScript   = "vif-route-netvm"
	qubesScript = "vif-route-qubes"
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

// qubesHotplug is the script that Qubes' own toolstack names for each card, if it is there.
type qubesHotplug struct{ there, ours bool }

func readQubesHotplug(_ context.Context, m *machine) (q qubesHotplug, err error) {
	const path = scriptsDir + qubesScript
	if q.there, err = m.exists(path); err != nil || !q.there {
		return q, err
	}
	target, err := filepath.EvalSymlinks(m.path(path))
	q.ours = filepath.Base(target) == ownScript
	return q, err
}

func (q qubesHotplug) judge() finding {
	switch {
	case !q.there:
		return fine("it is not installed")
	case !q.ours:
		return warn(scriptsDir+qubesScript+" is Qubes' own: vifs whose toolstack names it are not netvmd's",
			"Run: ln -sf /usr/lib/netvmd/"+ownScript+" "+scriptsDir+qubesScript)
	}
	return fine("%s leads to %s", qubesScript, ownScript)
}

// qubesHooks are programs of Qubes that translate DNS beside netvmd.
type qubesHooks []string

func readQubesHooks(_ context.Context, m *machine) (qubesHooks, error) {
	var out qubesHooks
	for _, path := range []string{
		"/etc/NetworkManager/dispatcher.d/qubes-nmhook",
		"/usr/lib/NetworkManager/dispatcher.d/qubes-nmhook",
		"/usr/lib/qubes/qubes-setup-dnat-to-ns",
	} {
		is, err := m.executable(path)
		if err != nil {
			return nil, err
		}
		if is {
			out = append(out, path)
		}
	}
	return out, nil
}

func (q qubesHooks) judge() finding {
	if len(q) > 0 {
		return warn(fmt.Sprintf("%s write DNS rules of their own beside netvmd's", strings.Join(q, " and ")),
			"Run: chmod a-x "+strings.Join(q, " "))
	}
	return fine("none can run")
}
