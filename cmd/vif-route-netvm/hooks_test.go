package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"netvmd/internal/lab"
)

// hooks makes a folder of hooks and returns the configuration that names it, and what reads what they wrote.
func (s *scene) hooks(programs map[string]string) (configuration string, wrote func() string) {
	s.t.Helper()
	dir := s.t.TempDir()
	for name, text := range programs {
		mode := os.FileMode(0o755)
		if strings.HasPrefix(name, "not-") {
			mode = 0o644
		}
		path := filepath.Join(dir, name)
		s.must(os.WriteFile(path, []byte("#!/bin/sh\n"+strings.ReplaceAll(text, "OUT", dir+".out")+"\n"), mode))
	}
	return s.configure("[hooks]", "[hooks]\nnetwork_hooks_dir = \""+dir+"\""), func() string {
		text, err := os.ReadFile(dir + ".out")
		s.must(err)
		s.must(os.Remove(dir + ".out"))
		return string(text)
	}
}

func TestHooksRunInTheirOrderWithWhatQubesGivesThem(t *testing.T) {
	s := open(t, lab.Options{})
	conf, wrote := s.hooks(map[string]string{
		"10-first":       `echo "first: $*" >>OUT`,
		"20-second":      `echo "second: $* up: $(ip -o link show dev $2 up | wc -l)" >>OUT`,
		"not-executable": `echo "not executable: $*" >>OUT`,
	})
	s.must(s.NetVM.AddCard(s.Work.Card))
	s.hotplug("online", s.Work.Card, conf)
	want := `first: online vif1.0 vif 10.137.0.11
first: online vif1.0 vif fd09:24ef:4179::a89:b
second: online vif1.0 vif 10.137.0.11 up: 1
second: online vif1.0 vif fd09:24ef:4179::a89:b up: 1
`
	if got := wrote(); got != want {
		t.Errorf("the hooks wrote\n%s\nwant\n%s", got, want)
	}
	s.must(s.NetVM.RemoveCard(s.Work.Card))
	s.hotplug("offline", s.Work.Card, conf)
	if got, want := wrote(), "first: offline vif1.0 vif\nsecond: offline vif1.0 vif up: 0\n"; got != want {
		t.Errorf("the hooks wrote\n%s\nwant\n%s", got, want)
	}
}

func TestAHookThatFailsOrHangsStopsNothing(t *testing.T) {
	s := open(t, lab.Options{})
	s.attach(s.Personal, s.Work)
	want := s.dump()
	s.must(s.Work.Detach(s.ctx))
	conf, wrote := s.hooks(map[string]string{
		"10-fails": "echo it is Monday; exit 3", "20-hangs": "[ $4 = 10.137.0.11 ] || exit 0; sleep 60 & echo $! >OUT; wait", "30-works": "echo works: $* >>OUT",
	})
	s.must(s.NetVM.AddCard(s.Work.Card))
	began := time.Now()
	code, said := s.try(s.NetVM.HotplugCommand(s.ctx, "online", s.Work.Card), conf)
	if code != 0 || !strings.Contains(said, "it is Monday") || !strings.Contains(said, "20-hangs") {
		t.Errorf("exit code %d, said %q; want 0, and a line about each hook", code, said)
	}
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("it took %s", took)
	}
	if status, _ := s.status(s.Work.Card); status != "connected" {
		t.Errorf("hotplug-status is %q, want connected", status)
	}
	child, works, _ := strings.Cut(wrote(), "\n")
	if works != "works: online vif1.0 vif 10.137.0.11\nworks: online vif1.0 vif fd09:24ef:4179::a89:b\n" {
		t.Errorf("the third hook wrote %q", works)
	}
	// A killed process is there until whoever adopted it has seen it.
	if stat, err := os.ReadFile("/proc/" + child + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("what the hook that hangs waits for is still there: %s", stat)
	}
	same(t, "afterwards", s.dump(), want)
}

func TestAddressesOfAllKindsAndNumbers(t *testing.T) {
	for name, c := range map[string]struct {
		domID int
		ip    string
		harden,
		noIPv6 bool
		want, wantNot []string
	}{
		"the lowest domid": {domID: 0, ip: "10.137.0.31", want: []string{
			"10.137.0.31 dev vif0.0 scope link metric 32752", "ipv6/conf/vif0.0/disable_ipv6:1"}},
		"the highest domid": {domID: 32752, ip: "10.137.0.31 fd09:24ef:4179::a89:1f", want: []string{
			"10.137.0.31 dev vif32752.0 scope link", "fd09:24ef:4179::a89:1f dev vif32752.0"}},
		"two addresses of each family": {domID: 5, ip: "10.137.0.31 fd09::1 10.137.0.32 fd09::2", want: []string{
			"10.137.0.31 dev vif5.0 scope link metric 32747", "10.137.0.32 dev vif5.0 scope link metric 32747",
			"fd09::1 dev vif5.0 metric 32747", "fd09::2 dev vif5.0 metric 32747",
			"10.137.0.32 dev vif5.0 lladdr 00:16:3e:5e:6c:01 PERMANENT", "fd09::2 dev vif5.0 lladdr 00:16:3e:5e:6c:01 PERMANENT"}},
		"IPv6 alone": {domID: 5, ip: "fd09::1", want: []string{"fd09::1 dev vif5.0 metric 32747", "vif5.0    inet6 fd09:24ef:4179::a89:6/128"},
			wantNot: []string{"vif5.0    inet "}},
		"IPv6 that is off": {domID: 5, ip: "10.137.0.31 fd09::1", noIPv6: true, want: []string{"ipv6/conf/vif5.0/disable_ipv6:1"},
			wantNot: []string{"fd09::1", "vif5.0    inet6"}},
		"a vif that is hardened": {domID: 5, ip: "10.137.0.31", harden: true, want: []string{
			"ipv4/conf/vif5.0/arp_announce:2", "ipv4/conf/vif5.0/drop_gratuitous_arp:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, lab.Options{})
			s.attach(s.Personal)
			before := s.dump()
			card := s.Work.Card
			card.DomID, card.IP = c.domID, c.ip
			var conf []string
			if c.noIPv6 {
				conf = append(conf, s.configure("gateway6 = \"fd09:24ef:4179::a89:6\"", "gateway6 = \"\""))
			}
			if c.harden {
				conf = append(conf, s.configure("[vif]", "[vif]\nharden = \"always\""))
			}
			s.must(s.NetVM.AddCard(card))
			s.hotplug("online", card, conf...)
			up := s.dump()
			for _, want := range c.want {
				if !strings.Contains(up, want) {
					t.Errorf("there is no %q in\n%s", want, differences(up, before))
				}
			}
			for _, not := range c.wantNot {
				if strings.Contains(up, not) {
					t.Errorf("there is %q in\n%s", not, differences(up, before))
				}
			}
			changes := s.watch()
			s.hotplug("online", card, conf...)
			if told := changes.list(); len(told) != 0 {
				t.Errorf("a second online changes something: %s", told)
			}
			s.must(s.NetVM.RemoveCard(card))
			s.hotplug("offline", card, conf...)
			same(t, "after offline", s.dump(), before)
		})
	}
}
