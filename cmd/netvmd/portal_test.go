package main

import (
	"strings"
	"testing"

	"netvmd/internal/doctor"
	"netvmd/internal/lab"
	"netvmd/internal/netvm"
)

// The real NetworkManager meets a captive portal.
func TestACaptivePortalIsTold(t *testing.T) {
	s := open(t, lab.Options{Portal: true})
	await := func(what string, holds func(netvm.Status) bool) {
		t.Helper()
		if last, err := s.NetVM.Await(s.ctx, holds); err != nil {
			t.Fatalf("%s: %v; state %s, portal %q, problems %q", what, err, last.State, last.PortalURL, last.Problems)
		}
	}
	s.start()
	s.Portal.Shut()
	s.nmcli("connection", "up", "home")
	await("the portal", func(r netvm.Status) bool { return r.State == netvm.Portal && r.PortalURL != "" })
	status, err := s.NetVM.Status(s.ctx)
	s.must(err)
	// What netvmd gives out is what leads to the portal's page.
	page, err := s.NetVM.Browse(s.ctx, status.PortalURL)
	s.must(err)
	if !strings.Contains(page, "Welcome to the hotel") {
		t.Errorf("%s leads to %q", status.PortalURL, page)
	}
	if out, code := s.ctl(lab.Nobody, "status"); code != 0 || !strings.Contains(out, "log in at "+status.PortalURL) {
		t.Errorf("netvmctl status: exit code %d\n%s", code, out)
	}
	if c := s.checks()["internet"]; c.State != doctor.Warning || !strings.Contains(c.Remedy, status.PortalURL) {
		t.Errorf("the doctor says %+v", c)
	}
	s.leads(s.Home.Resolvers[0], s.Home.Resolvers[1]) // a portal's page needs names too

	s.Portal.Open()
	s.must(s.NetVM.CheckConnectivity(s.ctx))
	await("somebody logged in", func(r netvm.Status) bool { return r.State == netvm.Online && r.PortalURL == "" && len(r.Problems) == 0 })
	s.Portal.Shut()
	s.must(s.NetVM.CheckConnectivity(s.ctx))
	await("the portal asks again", func(r netvm.Status) bool { return r.State == netvm.Portal && r.PortalURL == status.PortalURL })
	_, err = s.NetVM.Run(s.ctx, "sed", "-i", "s|^uri=.*|&?other|", s.NetVM.NetworkManagerConf())
	s.must(err)
	s.nmcli("general", "reload", "conf")
	await("another address is configured", func(r netvm.Status) bool { return r.PortalURL == status.PortalURL+"?other" })
	s.nmcli("connection", "down", "home")
	await("the network is left", func(r netvm.Status) bool { return r.State == netvm.Offline && r.PortalURL == "" })
}
