package engine

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"netvmd/internal/netvm"
)

// publish shows the status when it is another than before, and logs problems as they come and go.
func (e *Engine) publish() {
	s := e.snapshot()
	if reflect.DeepEqual(s, e.published) {
		return
	}
	for _, p := range s.Problems {
		if !slices.Contains(e.published.Problems, p) {
			e.Log.Warn("problem", "what", p)
		}
	}
	for _, p := range e.published.Problems {
		if !slices.Contains(s.Problems, p) {
			e.Log.Info("problem solved", "what", p)
		}
	}
	e.published = s
	e.Publisher.Publish(s)
}

func (e *Engine) snapshot() netvm.Status {
	state, uplinks := e.wayOut()
	return netvm.Status{
		Version:      e.Version,
		State:        cmp.Or(state, netvm.Offline),
		NMRunning:    !e.seen || e.view.NetworkManager.Running, // what is not known yet must not be said
		PortalURL:    e.view.PortalURL,
		Served:       e.now.PassThrough,
		Uplinks:      uplinks,
		DNSSource:    e.decision.Source,
		DNSReason:    e.decision.Reason,
		DNSServers:   e.decision.Servers,
		DNSDropped:   e.decision.Dropped,
		DNSTargets:   e.applied,
		DNSOverrides: e.now.Overrides,
		ChangedAt:    e.changedAt,
		ApplyTime:    e.applyTime,
		Backend:      e.Firewall.Name(),
		Vifs:         e.vifs,
		Problems:     e.problems(),
		Statistics:   e.statistics,
	}
}

// wayOut is the view's. That of a chained netvm has no IPv4 gateway in its routes; the toolstack says who it is.
func (e *Engine) wayOut() (netvm.State, []netvm.Uplink) {
	state, uplinks := e.view.WayOut()
	uplinks = slices.Clone(uplinks)
	for i := range uplinks {
		if u := &uplinks[i]; u.Type == netvm.TypeNetVM && !u.Gateway.Is4() && e.now.NextGateway.IsValid() {
			u.Gateway = e.now.NextGateway
		}
	}
	return state, uplinks
}

func (e *Engine) problems() []string {
	out := slices.Concat(e.now.Problems, e.view.Faults, e.decision.Problems, e.vifProblems)
	if e.failure != "" {
		out = append(out, "The kernel does not take our rules: "+e.failure+". The rules before stay in force.")
	}
	for _, d := range e.drifted {
		out = append(out, fmt.Sprintf("Somebody changed our rules (%s). Restart netvmd, or set firewall.on_drift = "+
			"\"restore\" in netvmd.toml.", d))
	}
	return out
}
