package main

import (
	"bufio"
	"slices"
	"strings"
	"syscall"

	"netvmd/internal/lab"
)

// rows are the lines of a routing table, word by word, from the heading of its columns on.
func rows(table string) [][]string {
	var out [][]string
	for _, line := range strings.Split(table, "\n") {
		words := strings.Fields(line)
		if len(words) > 0 && (len(out) > 0 || words[0] == "Destination") {
			out = append(out, words)
		}
	}
	return out
}

func routesAreThoseOfRoute(s *scene) {
	s.nmcli("connection", "up", "vpn")
	s.run("ip route add 203.0.113.0/24 via 192.0.2.1 dev home0 metric 7; ip route add unreachable 198.18.0.0/15; " +
		"ip route add 198.51.100.7 dev vpn0; ip route add blackhole 100.64.0.0/10 metric 4294967295")
	// In the AppVM there are no netvmd and no bus.
	const noBus = "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nonexistent "
	for _, in := range []struct {
		host  *lab.Host
		bus   string
		least int // rows, with the heading
	}{{s.NetVM.Host, "", 10}, {s.Work.Host, noBus, 2}} {
		want, err := in.host.Run(s.ctx, "sh", "-c", "PATH=$PATH:/usr/sbin:/sbin route -n")
		s.must(err)
		got, err := in.host.Run(s.ctx, "sh", "-c", in.bus+netvmctl+" routes")
		s.must(err)
		if !slices.EqualFunc(rows(got), rows(want), slices.Equal) || len(rows(want)) < in.least {
			s.t.Errorf("%s: netvmctl prints\n%s\nroute -n prints\n%s", in.host.Name, got, want)
		}
	}
	s.nmcli("connection", "down", "vpn")
	s.leads(s.Home.Resolvers[0], s.Home.Resolvers[1])
}

// netvmctlReads looks for the facts only: how they are put is netvmctl's own tests' business.
func netvmctlReads(s *scene) {
	h := s.Home.Resolvers
	for command, words := range map[string][]string{
		"status": {"online", "home", h[0].String(), s.Work.Vif},
		"dns":    {lab.Virtual4[0].String(), h[0].String(), lab.Virtual4[1].String(), h[1].String(), "networkmanager"},
		"vifs":   {s.Work.Vif, s.Work.Address.String(), s.Personal.Vif, s.Personal.Address.String()},
	} {
		for _, args := range [][]string{{command}, {command, "--json"}} {
			out, code := s.ctl(lab.Nobody, args...)
			if code != 0 {
				s.t.Errorf("netvmctl %q: exit code %d", args, code)
			}
			for _, w := range words {
				if !strings.Contains(strings.ToLower(out), w) {
					s.t.Errorf("netvmctl %q prints no %q:\n%s", args, w, out)
				}
			}
		}
	}
}

// watchTells lets netvmctl watch while a network goes.
func watchTells(s *scene) {
	cmd := s.NetVM.CommandAs(s.ctx, lab.Nobody, netvmctl, "watch")
	out, err := cmd.StdoutPipe()
	s.must(err)
	s.must(s.NetVM.Start(cmd))
	lines := bufio.NewScanner(out)
	await := func(word string) {
		s.t.Helper()
		for lines.Scan() {
			if strings.Contains(strings.ToLower(lines.Text()), word) {
				return
			}
		}
		s.t.Fatalf("netvmctl watch ended without a line with %q: %v", word, lines.Err())
	}
	await("online")
	s.nmcli("connection", "down", "home")
	await("refused")
	s.must(cmd.Process.Signal(syscall.SIGINT))
	if err := cmd.Wait(); err != nil {
		s.t.Errorf("netvmctl watch after Ctrl-C: %v", err)
	}
}
