package main

import (
	"fmt"
	"net/netip"
	"testing"

	"netvmd/internal/lab"
)

// asks sends a question by ARP from the AppVM work, to all, for each of the addresses.
func (s *scene) asks(sender netip.Addr, targets ...netip.Addr) {
	s.t.Helper()
	own := s.mac(s.Work.Card.MAC)
	var frames []lab.Frame
	for _, target := range targets {
		frames = append(frames, lab.ARP{FromMAC: own, ToMAC: lab.Broadcast, SenderMAC: own, Sender: sender,
			TargetMAC: s.mac("00:00:00:00:00:00"), Target: target})
	}
	s.must(s.Work.Send(s.ctx, "eth0", frames...))
}

func hears(who, of netip.Addr) string { return fmt.Sprintf("<%s hears of %s>", who, of) }

// forgedAsks are ARP questions under addresses that the AppVM work does not have, and under its own for what it must not
// hear of: none is answered, and nobody is remembered.
func (s *scene) forgedAsks(own netip.Addr, ear *ear) {
	s.t.Helper()
	forgers := []netip.Addr{s.Personal.Address, s.Home.Router.Addr(), s.Home.NetVM, lab.Virtual4[0], netip.MustParseAddr("10.137.0.99"),
		netip.MustParseAddr("203.0.113.1")}
	before := s.neighbours()
	for _, sender := range forgers {
		s.asks(sender, lab.Internet, s.Work.Gateway, s.Home.Router.Addr(), lab.Virtual4[0], own)
	}
	s.asks(own, own, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("224.0.0.1"))
	s.asks(own, s.Work.Gateway)
	ear.await(hears(own, s.Work.Gateway))
	for _, sender := range forgers {
		ear.mustNotHave(sender.String() + " hears")
	}
	ear.mustNotHave("hears of " + own.String())
	ear.mustNotHave("hears of 127")
	ear.mustNotHave("hears of 224")
	same(s.t, "neighbours after the forged questions", s.neighbours(), before)
}

func TestARPIsAnsweredForWhatIsRoutedElsewhereAndToTheAppVMAlone(t *testing.T) {
	overBackends(t, func(s *scene) {
		s.attach(s.Work, s.Personal)
		own, ear := s.Work.Address, s.tap("the AppVM", s.Work.Host, "eth0")
		s.forgedAsks(own, ear)
		ear.mustNotHave("hears of " + s.Home.NetVM.String())

		elsewhere := []netip.Addr{lab.Internet, lab.Virtual4[0], lab.Virtual4[1], s.Home.Router.Addr(), s.Personal.Address}
		s.asks(own, append(elsewhere, s.Home.NetVM)...)
		for _, a := range elsewhere {
			ear.await(hears(own, a))
		}
		ear.mustNotHave("hears of " + s.Home.NetVM.String())

		s.netvm("ip route del default")
		beyond := netip.MustParseAddr("203.0.113.99")
		s.asks(own, beyond, s.Home.Router.Addr()) // the second is on the uplink's own network
		ear.await(hears(own, s.Home.Router.Addr()))
		ear.mustNotHave("hears of " + beyond.String())
	})
}

func TestAnAppVMWithoutAGatewayInItsRouteReachesWhatItsNetvmRoutes(t *testing.T) {
	overBackends(t, func(s *scene) {
		s.attach(s.Work)
		_, err := s.Work.Run(s.ctx, "sh", "-ec", "ip route replace default dev eth0 scope link")
		s.must(err)
		s.connect(s.Work, s.Home.Host, lab.Internet)
	})
}

func TestARPBehindAHiddenAddressIsAnsweredToTheAppVMAlone(t *testing.T) {
	s := open(t, lab.Options{QubesDB: map[string]string{}})
	real, seen := s.Work.Address, netip.MustParseAddr("192.168.33.2")
	s.Work.Gateway = netip.MustParseAddr("192.168.33.1")
	s.NetVM.QubesDB.Set("/mapped-ip/"+real.String()+"/visible-ip", seen.String())
	s.NetVM.QubesDB.Set("/mapped-ip/"+real.String()+"/visible-gateway", s.Work.Gateway.String())
	s.Work.Card.IP, s.Work.Address, s.Work.Address6 = real.String(), seen, netip.Addr{}
	s.attach(s.Work, s.Personal)
	ear := s.tap("the AppVM", s.Work.Host, "eth0")
	s.forgedAsks(seen, ear)
	s.asks(seen, lab.Internet, lab.Virtual4[0])
	ear.await(hears(seen, lab.Internet))
	ear.await(hears(seen, lab.Virtual4[0]))
	inside := s.netvm("ip netns exec vif1.0-nat ip neighbour show | grep -v PERMANENT | grep -v FAILED || :")
	same(s.t, "whom the namespace has met", inside, "")
}
