package main

import (
	"os"
	"strings"
	"testing"
)

func TestUpAndDownLeaveEverythingAsItWas(t *testing.T) {
	s := newScene(t)
	before := s.view()
	out := s.runs("up")
	for _, want := range []string{"pause domain 3, work: xl pause 3\n", "\nwait for the card\n", "(3): `qvm-dom0-network-via-netvm down`"} {
		if !strings.Contains(out, want) {
			t.Errorf("up says\n%s\nwant %q", out, want)
		}
	}
	if got := s.states(); got != "sys-net 0, sys-net-dm 0, work 1, work-dm 1, vault 1, ended 0, personal 1" {
		t.Errorf("paused: %s", got)
	}
	view := s.view()
	for _, want := range []string{"default dev eth0 scope link", "nameserver 10.137.0.6\nnameserver 10.137.0.254\n", "10.137.255.254/32",
		"10.137.0.6 dev eth0 lladdr fe:ff:ff:ff:ff:ff PERMANENT", "state/dom0-network.journal"} {
		if !strings.Contains(view, want) {
			t.Errorf("up leaves\n%s\nwant %q", view, want)
		}
	}
	s.runs("down")
	s.mustBe(before)
	if out := s.runs("down"); out != "nothing to undo\n" {
		t.Errorf("a second down says %q", out)
	}
	calls, err := os.ReadFile(s.path(callsFile))
	s.must(err)
	t.Logf("%s", calls)
}

func TestDryRunTellsTheSteps(t *testing.T) {
	s := newScene(t)
	before := s.view()
	resolvConf := s.path("resolv.conf")
	want := `1. pause domain 3, work: xl pause 3
2. pause domain 4, work-dm: xl pause 4
3. pause domain 9, personal: xl pause 9
4. give dom0 a network card of sys-net: xl network-attach 0 backend=sys-net script=vif-route-netvm mac=00:16:3e:5e:6c:fe ip=10.137.255.254
5. configure the card: 10.137.255.254, default route, gateway 10.137.0.6
6. write ` + resolvConf + `: 10.137.0.6, 10.137.0.254
`
	if got := s.runs("up", "--dry-run"); got != want {
		t.Errorf("up --dry-run says\n%s\nwant\n%s", got, want)
	}
	if got := s.runs("--dry-run", "down"); got != "nothing to undo\n" {
		t.Errorf("down --dry-run says %q", got)
	}
	s.mustBe(before)
	s.runs("up")
	up := s.view()
	want = `1. restore ` + resolvConf + `
2. set eth0 down
3. take dom0's network card away: xl network-detach 0 00:16:3e:5e:6c:fe
4. let domain 9, personal go on: xl unpause 9
5. let domain 4, work-dm go on: xl unpause 4
6. let domain 3, work go on: xl unpause 3
`
	if got := s.runs("down", "--dry-run"); got != want {
		t.Errorf("down --dry-run says\n%s\nwant\n%s", got, want)
	}
	s.mustBe(up)
	s.runs("down")
}

// Options and the configuration say what the toolstack does not.
func TestWhereAddressesComeFrom(t *testing.T) {
	const asked = "configure the card: 10.137.255.254, default route, gateway "
	for _, tc := range []struct {
		name string
		make func(s *scene)
		args []string
		want []string
	}{
		{"options", func(*scene) {}, []string{"--address", "10.137.9.9", "--gateway", "10.137.0.1", "--netvm", "sys-net"},
			[]string{"ip=10.137.9.9\n", "configure the card: 10.137.9.9, default route, gateway 10.137.0.1\n"}},
		{"the configuration before the toolstack", func(s *scene) { s.configure("[vif]\ngateway = \"10.137.0.2\"\n") }, nil, []string{asked + "10.137.0.2\n"}},
		{"the netvm's XenStore", func(*scene) {}, nil, []string{asked + "10.137.0.6\n", ": 10.137.0.6, 10.137.0.254\n"}},
		{"XenStore without a second nameserver", func(s *scene) { s.store.Delete("/local/domain/1/qubes_netvm_secondary_dns") }, nil, []string{": 10.137.0.6\n"}},
		{"the netvm's QubesDB before XenStore", func(s *scene) { s.qubesDB("sys-net") }, nil, []string{asked + "10.137.0.7\n", ": 10.139.9.1\n"}},
		{"a netvm that is called so", func(s *scene) { s.change("sys-net", func(g *guest) { g.Name = "netvm" }) }, nil, []string{"backend=netvm "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(t)
			tc.make(s)
			out := s.runs(append([]string{"up", "--dry-run"}, tc.args...)...)
			for _, want := range tc.want {
				if !strings.Contains(out, want) {
					t.Errorf("it says\n%s\nwant %q", out, want)
				}
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	s := newScene(t)
	if out := s.runs("--help"); !strings.Contains(out, "up|down") || !strings.Contains(out, "-netvm name") {
		t.Errorf("--help says\n%s", out)
	}
	if out := s.runs("--version"); out != "qvm-dom0-network-via-netvm devel\n" {
		t.Errorf("--version says %q", out)
	}
}
