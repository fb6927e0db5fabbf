package main

import (
	"fmt"
	"net/netip"
	"testing"

	"netvmd/internal/lab"
	"netvmd/internal/netvm"
	"netvmd/internal/vif"
)

// traffic is that of the work AppVM's vif, as the netvm counts it.
func (s *scene) traffic() (out netvm.Traffic) {
	s.t.Helper()
	var all []netvm.Traffic
	s.must(s.NetVM.Do(func() (err error) {
		all, err = vif.Traffic()
		return err
	}))
	for _, t := range all {
		if t.Vif == s.Work.Vif {
			return t
		}
	}
	s.t.Fatalf("no traffic of %s in %+v", s.Work.Vif, all)
	return out
}

func TestWhatAnAppVMSendsIsReceivedByItsVif(t *testing.T) {
	const packets, size = 20, 1000
	for _, tc := range []struct {
		name string
		hide bool
	}{{"an ordinary vif", false}, {"one behind a namespace of its own", true}} {
		t.Run(tc.name, func(t *testing.T) {
			s := open(t, lab.Options{QubesDB: map[string]string{}})
			s.start()
			s.nmcli("connection", "up", "home")
			if tc.hide {
				s.hide()
			}
			s.leads(s.Home.Resolvers[0], s.Home.Resolvers[1])
			before := s.traffic()
			s.silence(s.Personal.Address, packets, size)
			after := s.traffic()
			received, sent := after.RxBytes-before.RxBytes, after.TxBytes-before.TxBytes
			if received < packets*size || after.RxPackets < before.RxPackets+packets || sent > size {
				t.Errorf("of %d packets of %d bytes from the AppVM: %+v became %+v", packets, size, before, after)
			}
		})
	}
}

// silence has the work AppVM send packets to somebody who does not answer.
func (s *scene) silence(to netip.Addr, packets, size int) {
	s.t.Helper()
	script := fmt.Sprintf("for i in $(seq %d); do head -c %d /dev/zero >/dev/udp/%s/9; done", packets, size, to)
	if _, err := s.Work.Run(s.ctx, "bash", "-c", script); err != nil {
		s.t.Fatal(err)
	}
}
