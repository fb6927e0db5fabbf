package main

import (
	"fmt"
	"net/netip"
	"os/exec"
	"sync"
	"testing"

	"netvmd/internal/lab"
)

// cards are those of many AppVMs, whose ends are all in one host.
func (s *scene) cards(n int) []lab.Card {
	out := make([]lab.Card, n)
	for i := range out {
		v4, v6 := netip.AddrFrom4([4]byte{10, 137, 1, byte(i)}), fmt.Sprintf("fd09:24ef:4179::a89:1%03x", i)
		out[i] = lab.Card{DomID: 100 + i, MAC: fmt.Sprintf("00:16:3e:00:00:%02x", i), IP: v4.String() + " " + v6,
			Peer: s.Personal.Host, PeerName: fmt.Sprintf("many%d", i)}
	}
	return out
}

// together runs prepared programs at the same time and wants each to succeed.
func (s *scene) together(cmds ...*exec.Cmd) {
	s.t.Helper()
	codes, said := make([]int, len(cmds)), make([]string, len(cmds))
	var all sync.WaitGroup
	for i, cmd := range cmds {
		all.Add(1)
		go func() {
			defer all.Done()
			codes[i], said[i] = s.try(cmd)
		}()
	}
	all.Wait()
	for i, cmd := range cmds {
		if codes[i] != 0 || said[i] != "" {
			s.t.Errorf("%s of %s: exit code %d, said %q", cmd.Args[1], cmd.Env[len(cmd.Env)-7], codes[i], said[i])
		}
	}
}

func TestManyAtATimeEndAsOneAfterTheOther(t *testing.T) {
	overBackends(t, func(s *scene) {
		cards := s.cards(8)
		plug := func() {
			for _, c := range cards {
				s.must(s.NetVM.AddCard(c))
			}
		}
		commands := func(command string) (out []*exec.Cmd) {
			for _, c := range cards {
				out = append(out, s.NetVM.HotplugCommand(s.ctx, command, c))
			}
			return out
		}
		plug()
		s.together(commands("online")...) // the first of all loads the rules
		together := s.dump()
		for _, c := range cards {
			s.hotplug("online", c)
		}
		same(s.t, "after online once more, one after the other", s.dump(), together)
		for _, c := range cards {
			s.must(s.NetVM.RemoveCard(c))
		}
		s.together(commands("offline")...)
		gone := s.dump()
		plug()
		for _, c := range cards {
			s.hotplug("online", c)
		}
		same(s.t, "one after the other", inAnyOrder(s.dump()), inAnyOrder(together))
		for _, c := range cards {
			s.must(s.NetVM.RemoveCard(c))
			s.hotplug("offline", c)
		}
		same(s.t, "after offline, one after the other", s.dump(), gone)
	})
}

func TestTwoAtATimeForOneVifEndAsOneOfThem(t *testing.T) {
	overBackends(t, func(s *scene) {
		s.attach(s.Personal)
		s.must(s.NetVM.AddCard(s.Work.Card))
		s.hotplug("online", s.Work.Card)
		online := s.dump()
		s.hotplug("offline", s.Work.Card)
		offline := withoutSettings(s.dump())
		for range 5 {
			for _, pair := range [][2]string{{"online", "online"}, {"online", "offline"}, {"offline", "offline"}} {
				s.together(s.NetVM.HotplugCommand(s.ctx, pair[0], s.Work.Card), s.NetVM.HotplugCommand(s.ctx, pair[1], s.Work.Card))
				is := s.dump()
				isOnline, isOffline := is == online, withoutSettings(is) == offline
				if pair[1] == "online" && !isOnline || pair[0] == "offline" && !isOffline || !isOnline && !isOffline {
					s.t.Errorf("%s and %s at a time: neither up nor down:\n%s", pair[0], pair[1], differences(is, online))
				}
			}
		}
	})
}

// cycles is how often vifs come and go, lanes of them at a time.
const (
	cycles = 2000
	lanes  = 8
)

func TestManyCyclesLeaveNothingBehind(t *testing.T) {
	s := open(t, lab.Options{VifRoute: plainProgram})
	s.attach(s.Personal)
	before := s.dump()
	cards := s.cards(lanes)
	var all sync.WaitGroup
	for _, c := range cards {
		all.Add(1)
		go func() {
			defer all.Done()
			for range cycles / lanes {
				if err := s.cycle(c); err != nil {
					s.t.Errorf("%s: %v", c.Name(), err)
					return
				}
			}
		}()
	}
	all.Wait()
	same(t, "after all cycles", s.dump(), before)
}

// cycle is what Xen does with a card.
func (s *scene) cycle(c lab.Card) error {
	if err := s.NetVM.AddCard(c); err != nil {
		return err
	}
	if _, err := s.NetVM.Hotplug(s.ctx, "online", c); err != nil {
		return err
	}
	if err := s.NetVM.RemoveCard(c); err != nil {
		return err
	}
	_, err := s.NetVM.Hotplug(s.ctx, "offline", c)
	s.NetVM.ForgetCard(c)
	return err
}
