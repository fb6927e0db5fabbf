package main

import (
	"testing"

	"netvmd/internal/lab"
)

// again starts an AppVM's domain anew, with the same addresses, while the old one is still there.
func (s *scene) again(a *lab.AppVM, domID int) *lab.AppVM {
	s.t.Helper()
	newer, err := s.Again(a, domID)
	s.must(err)
	s.attach(newer)
	return newer
}

func TestAnAddressMovesToTheNewerDomainAtOnce(t *testing.T) {
	overBackends(t, func(s *scene) {
		s.attach(s.Personal, s.Work)
		flows := []flow{s.connect(s.Work, s.Home.Host, lab.Internet), s.connect(s.Work, s.Home.Host, s.Home.Router6.Addr())}
		newer := s.again(s.Work, 7)
		if left := s.flows(); left != "" {
			s.t.Errorf("flows of the old one are left:\n%s", left)
		}
		fresh := s.connect(newer, s.Home.Host, lab.Internet)
		fresh6 := s.connect(newer, s.Home.Host, s.Home.Router6.Addr())
		for _, f := range flows {
			f.mustBeDead()
		}
		uplink := s.tap("the uplink", s.Home.Host, "lan0")
		s.must(s.Work.Send(s.ctx, "eth0", s.datagram(s.Work, s.Work.Address, lab.Internet, 7777, "<forged by the old one>")))
		s.must(newer.Send(s.ctx, "eth0", s.datagram(newer, s.Work.Address, lab.Internet, 7777, "<right>")))
		uplink.await("<right>")
		uplink.mustNotHave("forged")

		s.must(s.Work.Detach(s.ctx))
		fresh.mustWork()
		fresh6.mustWork()
		s.connect(newer, s.Home.Host, lab.Internet)
	})
}

func TestTheOlderDomainGetsItsAddressBack(t *testing.T) {
	for name, gone := range map[string]bool{"when the newer one is gone": true, "when the newer one's vif is taken down": false} {
		t.Run(name, func(t *testing.T) {
			overBackends(t, func(s *scene) {
				s.attach(s.Work)
				before := s.dump()
				newer := s.again(s.Work, 7)
				flow := s.connect(newer, s.Home.Host, lab.Internet)
				if gone {
					s.must(newer.Detach(s.ctx))
				} else {
					s.hotplug("offline", newer.Card)
				}
				flow.mustBeDead()
				if gone {
					same(s.t, "when the newer one is gone", s.dump(), before)
				}
				s.connect(s.Work, s.Home.Host, lab.Internet)
				s.connect(s.Work, s.Home.Host, s.Home.Router6.Addr())
			})
		})
	}
}

func TestAnOlderDomainDoesNotTakeTheAddressOfANewerOne(t *testing.T) {
	overBackends(t, func(s *scene) {
		s.must(s.NetVM.AddCard(s.Work.Card))
		newer := s.again(s.Work, 7)
		before := s.dump()
		s.mustRefuse(s.Work.Card, "10.137.0.11 belongs to vif7.0")
		same(s.t, "after the older one tried", s.dump(), before)
		s.connect(newer, s.Home.Host, lab.Internet)
	})
}

func TestTwoCardsOfOneDomainDoNotShareAnAddress(t *testing.T) {
	overBackends(t, func(s *scene) {
		s.attach(s.Work)
		second := s.Work.Card
		second.DevID, second.PeerName = 1, "eth1"
		s.must(s.NetVM.AddCard(second))
		before := s.dump()
		s.mustRefuse(second, "10.137.0.11 belongs to vif1.0")
		same(s.t, "after the second card tried", s.dump(), before)
	})
}
