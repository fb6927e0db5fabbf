package main

import (
	"net/netip"
	"strings"
	"testing"

	"netvmd/internal/lab"
)

// hide gives the work AppVM another address and gateway than the netvm uses for it.
func (s *scene) hide() (real netip.Addr) {
	s.t.Helper()
	s.must(s.Work.Detach(s.ctx))
	real = s.Work.Address
	s.NetVM.QubesDB.Set("/mapped-ip/"+real.String()+"/visible-ip", "192.168.33.2")
	s.NetVM.QubesDB.Set("/mapped-ip/"+real.String()+"/visible-gateway", "192.168.33.1")
	s.Work.Card.IP = real.String()
	s.Work.Address, s.Work.Address6 = netip.MustParseAddr("192.168.33.2"), netip.Addr{}
	s.Work.Gateway = netip.MustParseAddr("192.168.33.1")
	s.must(s.Work.Attach(s.ctx))
	return real
}

// traces are what the netvm has of a hidden address: the namespace and the vif.
func (s *scene) traces() string {
	s.t.Helper()
	out, err := s.NetVM.Run(s.ctx, "sh", "-c", "ls /run/netns 2>/dev/null; ip -br link | grep vif1 || :")
	s.must(err)
	return out
}

func TestAHiddenAddressIsTheNetvmsBusinessAlone(t *testing.T) {
	s := open(t, lab.Options{QubesDB: map[string]string{}})
	s.start()
	s.nmcli("connection", "up", "home")
	o := s.Home.Resolvers
	real := s.hide()
	s.leads(o[0], o[1])

	flows, err := s.NetVM.Run(s.ctx, "conntrack", "-L", "-p", "udp")
	s.must(err)
	if !strings.Contains(flows, "src="+real.String()+" ") || strings.Contains(flows, s.Work.Address.String()) {
		t.Errorf("the netvm knows the AppVM by another address than %s:\n%s", real, flows)
	}
	s.nmcli("connection", "down", "home")
	s.leads(none, none) // refused at once: the ICMP error reaches the socket under the visible address

	before := s.traces()
	if _, err := s.NetVM.Hotplug(s.ctx, "online", s.Work.Card); err != nil {
		t.Errorf("again: %v", err)
	}
	if after := s.traces(); after != before {
		t.Errorf("a second online changed\n%s to\n%s", before, after)
	}
	s.leads(none, none)

	s.must(s.Work.Detach(s.ctx))
	if left := s.traces(); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}
