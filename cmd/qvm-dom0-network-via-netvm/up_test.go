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
	for _, want := range []string{"default dev eth0 scope link", "nameserver 10.139.1.1\nnameserver 10.139.1.2\n", "10.137.255.254/32",
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
