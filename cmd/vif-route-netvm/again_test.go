package main

import (
	"strings"
	"testing"
	"time"

	"netvmd/internal/lab"
)

func TestOnlineTwiceChangesNothingAndKillsNoFlow(t *testing.T) {
	overBackends(t, func(s *scene) {
		s.attach(s.Work, s.Personal)
		flow := s.connect(s.Work, s.Home.Host, lab.Internet)
		before, changes := s.dump(), s.watch()
		s.hotplug("online", s.Work.Card)
		s.hotplug("online", s.Personal.Card)
		if told := changes.list(); len(told) != 0 {
			s.t.Errorf("the kernel told of changes: %s", told)
		}
		same(s.t, "after the second online", s.dump(), before)
		flow.mustWork()
	})
}

func TestOfflineTwiceIsOfflineOnce(t *testing.T) {
	overBackends(t, func(s *scene) {
		s.attach(s.Personal)
		empty := s.dump()
		s.must(s.Work.Attach(s.ctx))
		s.must(s.NetVM.RemoveCard(s.Work.Card))
		for range 2 {
			s.hotplug("offline", s.Work.Card)
			same(s.t, "after offline", s.dump(), empty)
		}
	})
}

func TestOfflineOfAVifThatNeverWasLeavesNothing(t *testing.T) {
	overBackends(t, func(s *scene) {
		s.hotplug("offline", s.Work.Card)
		if out := s.netvm("nft list ruleset"); s.NetVM.Backend() == lab.NFTables && out != "" {
			s.t.Errorf("offline loaded rules:\n%s", out)
		}
		s.attach(s.Personal)
		before := s.dump()
		s.hotplug("offline", s.Work.Card)
		same(s.t, "after offline of a stranger", s.dump(), before)
	})
}

func TestOfflineWhileTheDeviceIsThereClosesIt(t *testing.T) {
	overBackends(t, func(s *scene) {
		s.must(s.NetVM.AddCard(s.Personal.Card))
		s.hotplug("online", s.Personal.Card)
		s.must(s.NetVM.AddCard(s.Work.Card))
		bare := s.dump()
		s.hotplug("online", s.Work.Card)
		s.hotplug("offline", s.Work.Card)
		same(s.t, "after offline", withoutSettings(s.dump()), withoutSettings(bare))
		s.hotplug("online", s.Work.Card)
	})
}

func TestOnlineMendsWhatSomebodyFlushed(t *testing.T) {
	for what, command := range map[string]string{
		"the rules, while the vif is up": "nft flush ruleset",
		"the routes":                     "ip route flush dev vif1.0; ip -6 route flush dev vif1.0 metric 32751",
		"the addresses":                  "ip address flush dev vif1.0 to 10.137.0.6; ip -6 address flush dev vif1.0 to fd09:24ef:4179::a89:6",
		"the neighbours":                 "ip neighbour flush dev vif1.0 nud permanent; ip -6 neighbour flush dev vif1.0 nud permanent",
		"the link":                       "ip link set vif1.0 down",
		"the link group":                 "ip link set vif1.0 group 0",
	} {
		t.Run(what, func(t *testing.T) {
			s := open(t, lab.Options{})
			s.attach(s.Work)
			before := s.dump()
			s.netvm(command)
			s.hotplug("online", s.Work.Card)
			same(t, "after online", s.dump(), before)
		})
	}
}

// withoutSettings leaves a dump's sysctls out: a vif that is taken back keeps its own.
func withoutSettings(dump string) string {
	before, rest, _ := strings.Cut(dump, "== settings\n")
	_, after, _ := strings.Cut(rest, "== nftables\n")
	return before + "== nftables\n" + after
}

// lateness is how long a device lets the program wait for it.
const lateness = 300 * time.Millisecond

func TestADeviceThatComesLateIsWaitedFor(t *testing.T) {
	s := open(t, lab.Options{})
	s.attach(s.Personal, s.Work)
	want := s.dump()
	s.must(s.NetVM.RemoveCard(s.Work.Card))
	s.hotplug("offline", s.Work.Card)

	cmd := s.NetVM.HotplugCommand(s.ctx, "online", s.Work.Card)
	s.must(s.NetVM.Start(cmd))
	time.Sleep(lateness)
	s.must(s.NetVM.AddCard(s.Work.Card))
	s.must(cmd.Wait())
	same(t, "with a late device", s.dump(), want)
}

func TestADeviceThatNeverComesIsNotWaitedForForEver(t *testing.T) {
	s := open(t, lab.Options{})
	s.attach(s.Personal)
	before := s.dump()
	s.NetVM.WriteNodes(s.Work.Card)
	s.mustRefuse(s.Work.Card, "no device of that name after 5s")
	same(t, "without a device", s.dump(), before)
}
