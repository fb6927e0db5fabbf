package main

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestUpRefusesAndChangesNothing(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(s *scene)
		args []string
		code int
		want string
	}{
		{"in a domain that is not dom0", func(s *scene) { s.write("proc/xen/capabilities", "\n") }, nil, 1, "this is not dom0"},
		{"without Xen", func(s *scene) { s.must(os.Remove(s.path("proc/xen/capabilities"))) }, nil, 1, "this is not dom0"},
		{"without xl", func(s *scene) { s.must(os.Remove(s.path("bin/xl"))) }, nil, 1, "xl, the toolstack's program, is not here"},
		{"without XenStore", func(s *scene) { s.must(s.store.Close()) }, nil, 1, "xenstore: "},
		{"when xl fails", func(s *scene) { s.goesWrong(ruin{Command: "list", Fail: "cannot open\nprivcmd"}) }, nil, 1,
			"xl list -v: exit status 1: xl stand-in: cannot open privcmd"},
		{"when xl prints what nobody knows", func(s *scene) { s.change("work", func(g *guest) { g.UUID = "-" }) }, nil, 1, "xl list -v: line 5: "},
		{"without a netvm of a usual name", func(s *scene) { s.guests(domain0, work) }, nil, 1,
			"neither sys-net nor netvm runs: say --netvm NAME; these run: work"},
		{"when nothing runs", func(s *scene) { s.guests(domain0) }, nil, 1, "sys-net does not run, nor does any other domain: start the netvm first"},
		{"with a netvm that nobody knows", nil, []string{"--netvm", "sys-usb"}, 1, "sys-usb does not run: start it first, or say another --netvm; these run: sys-net"},
		{"with a netvm that has shut down", nil, []string{"--netvm", "ended"}, 1, "ended does not run"},
		{"with a netvm that is paused", nil, []string{"--netvm", "vault"}, 1, "domain 5, vault is paused: `xl unpause 5` first"},
		{"with dom0 as the netvm", nil, []string{"--netvm", "Domain-0"}, 1, "Domain-0 is dom0 itself"},
		{"when another domain serves the netvm", func(s *scene) { s.store.Set("/local/domain/9/device/vif/0/backend-id", "1") },
			[]string{"--netvm", "personal", "--gateway", "10.137.0.6"}, 1, "personal has its network from sys-net, which would be paused: say --netvm sys-net"},
		{"without a gateway", func(s *scene) { s.store.Delete("/local/domain/1/qubes_netvm_gateway") }, nil, 1,
			"sys-net's address for its AppVMs is not known: say --gateway ADDRESS, or set vif.gateway"},
		{"when the netvm's gateway makes no sense", func(s *scene) { s.store.Set("/local/domain/1/qubes_netvm_gateway", "224.0.0.1") }, nil, 1,
			`/local/domain/1/qubes_netvm_gateway: "224.0.0.1" cannot be a gateway`},
		{"when the netvm's second nameserver makes no sense", func(s *scene) { s.store.Set("/local/domain/1/qubes_netvm_secondary_dns", "x") }, nil, 1,
			`/local/domain/1/qubes_netvm_secondary_dns: "x" cannot be a nameserver`},
		{"with dom0's own address as the gateway", nil, []string{"--gateway", "10.137.255.254"}, 1, "10.137.255.254 cannot be both"},
		{"when dom0 has such a card already", func(s *scene) { s.store.Set("device/vif/3/mac", "00:16:3E:5E:6C:FE") }, nil, 1,
			"dom0 has a network card 00:16:3e:5e:6c:fe already, of which no journal tells: `xl network-detach 0 3` first"},
		{"when dom0 has a way out already", addRoute, nil, 1, "dom0 has a default route already"},
		{"with a configuration that is wrong", func(s *scene) { s.write("netvmd.toml", "sate_dir = \"/\"\n") }, nil, 1, "unknown key sate_dir"},
		{"with an address that cannot be", nil, []string{"--address", "::1"}, 2, "--address: ::1 is no unicast IPv4 address"},
		{"with a gateway that cannot be", nil, []string{"--gateway", "127.0.0.1"}, 2, "--gateway: 127.0.0.1 is no unicast IPv4 address"},
		{"with what is no address", nil, []string{"--gateway", "x"}, 2, "invalid value"},
		{"with an option that nobody knows", nil, []string{"--force"}, 2, "flag provided but not defined"},
		{"with two commands", nil, []string{"down"}, 2, "one command is wanted, up or down"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(t)
			if tc.make != nil {
				tc.make(s)
			}
			before := s.view()
			s.fails(tc.code, tc.want, append([]string{"up"}, tc.args...)...)
			s.fails(tc.code, tc.want, append([]string{"up", "--dry-run"}, tc.args...)...)
			s.mustBe(before)
		})
	}
}

// addRoute gives this namespace a default route, over its loopback.
func addRoute(s *scene) {
	lo, err := netlink.LinkByName("lo")
	s.must(err)
	s.must(netlink.LinkSetUp(lo))
	route := &netlink.Route{LinkIndex: lo.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}}
	s.must(netlink.RouteAdd(route))
	s.t.Cleanup(func() {
		s.must(netlink.RouteDel(route))
		s.must(netlink.LinkSetDown(lo))
	})
}

func TestRootAloneMay(t *testing.T) {
	s := newScene(t)
	s.must(os.Chmod(s.dir, 0o755))
	for _, command := range []string{"up", "down"} {
		r := s.finish(asNobody(s.command(command)))
		if r.code != 4 || !strings.Contains(r.complaint, "only root may do this") {
			t.Errorf("%s: exit code %d, said %q", command, r.code, r.complaint)
		}
	}
}

func TestUpRefusesWhenItIsUp(t *testing.T) {
	s := newScene(t)
	s.runs("up")
	before := s.view()
	s.fails(1, "it is up already, or was not ended: "+s.path("state/dom0-network.journal"), "up")
	s.mustBe(before)
	s.runs("down")
}

func TestDownRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, journal string
		args          []string
		code          int
		want          string
	}{
		{"with an option of up", "", []string{"--netvm", "sys-net"}, 2, "down takes no --netvm"},
		{"a journal with a line that is none", header + "{\n{}\n", nil, 1, "dom0-network.journal: line 2: "},
		{"a journal with a step that nobody knows", header + `{"format":{}}` + "\n", nil, 1, "line 2: json: unknown field"},
		{"a journal without its beginning", `{"pause":{"domid":3,"name":"work","uuid":"` + uuidOf(3) + `"}}` + "\n", nil, 1, "line 1: "},
		{"a journal of a domain that cannot be", header + `{"pause":{"domid":0,"name":"x","uuid":"` + uuidOf(0) + `"}}` + "\n", nil, 1, "line 2: pause: domid 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(t)
			if tc.journal != "" {
				s.write("state/dom0-network.journal", tc.journal)
			}
			before := s.view()
			s.fails(tc.code, tc.want, append([]string{"down"}, tc.args...)...)
			s.mustBe(before)
		})
	}
}

const header = `{"begin":{"boot":"` + boot + `","version":"devel"}}` + "\n"
