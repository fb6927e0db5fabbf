package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"netvmd/internal/doctor"
	"netvmd/internal/lab"
)

// checks are those of netvmctl doctor, by their names.
func (s *scene) checks() map[string]doctor.Result {
	s.t.Helper()
	out, code := s.ctl(lab.RootUser, "doctor", "--json", "--config", s.NetVM.NetvmdConfig())
	var said struct{ Checks []doctor.Result }
	if err := json.Unmarshal([]byte(out), &said); err != nil || code > 1 {
		s.t.Fatalf("netvmctl doctor: exit code %d, %v:\n%s", code, err, out)
	}
	byName := map[string]doctor.Result{}
	for _, c := range said.Checks {
		byName[c.ID] = c
	}
	return byName
}

func TestTheDoctorFindsASoundNetvmSoundAndASickOneSick(t *testing.T) {
	s := open(t, lab.Options{})
	s.start()
	s.nmcli("connection", "up", "home")
	s.leads(s.Home.Resolvers[0], s.Home.Resolvers[1])
	// A lab has no systemd, and shares /etc and /usr with the machine outside.
	outside := []string{"units", "hotplug", "qubes-hotplug", "qubes-hooks"}
	sound := s.checks()
	for name, c := range sound {
		if c.State != doctor.OK && !slices.Contains(outside, name) || c.State == doctor.Failed {
			t.Errorf("%+v", c)
		}
	}
	if len(sound) < 25 {
		t.Errorf("there are %d checks", len(sound))
	}
	s.run("sed -i s/^unmanaged-devices=.*// " + s.NetVM.NetworkManagerConf())
	s.nmcli("general", "reload")
	s.nmcli("device", "set", s.Work.Vif, "managed", "yes")
	if c := s.checks()["networkmanager-vifs"]; c.State != doctor.Failed || !strings.Contains(c.Found, s.Work.Vif) {
		t.Errorf("NetworkManager manages %s: %+v", s.Work.Vif, c)
	}
	s.nmcli("connection", "down", "home")
	s.leads(none, none)
	if c := s.checks()["dns"]; c.State != doctor.Warning {
		t.Errorf("without a network: %+v", c)
	}
}
