package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"netvmd/internal/lab"
)

// deaths are the system calls with which the program, and what it starts, change something: it is killed at the first
// of each kind, then at the second, and so on, until a run is over before. strace counts for each thread.
var deaths = map[lab.Backend][]string{
	lab.NFTables:       {"sendto", "sendmsg", "write", "renameat", "unlinkat", "mkdirat", "clone", "clone3"},
	lab.IPTablesNFT:    {start},
	lab.IPTablesLegacy: {start},
}

// start is another instant at which it is killed: when it starts a program, before that does anything. iptables makes its
// changes by some hundred of these, and under strace each takes many times as long.
const start = "start"

// strides leave some instants out where a run consists of many processes, but for the first ones.
var strides = map[lab.Backend]int{lab.NFTables: 1, lab.IPTablesNFT: 13, lab.IPTablesLegacy: 11}

// maxDeaths is far more than a run has calls of one kind.
const maxDeaths = 400

// kill runs a command that is killed at the n-th instant of a kind, or what it starts is, by strace or by what it starts;
// false = it was over before.
func (s *scene) kill(command string, c lab.Card, at string, n int) bool {
	s.t.Helper()
	cmd := s.NetVM.HotplugCommand(s.ctx, command, c)
	if at == start {
		cmd.Env = append(cmd.Env, "PATH="+s.starters(n)+":"+os.Getenv("PATH"))
	} else {
		under(cmd, "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+at,
			"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", at, n))
		cmd.Env = append(cmd.Env, "GOMAXPROCS=1") // fewer threads, so that one of them gets far
	}
	const ended = -1 // os.ProcessState.ExitCode of who was ended by a signal, as strace is, too, then
	code, said := s.try(cmd)
	killed := code == ended || strings.Contains(said, "signal: killed") // or nft was: strace counts its calls too
	if code != 0 && !killed {
		s.t.Errorf("%s failed instead of being killed: exit code %d, said %q", command, code, said)
	}
	return killed
}

// starter stands for a program that is started: the n-th of all kills who starts it, any other is the program itself.
const starter = `#!/bin/sh
read n <%[1]s/count
n=$((n + 1))
echo $n >%[1]s/count
[ $n != %[2]d ] || { kill -9 $PPID; exit 1; }
exec %[3]s "$@"
`

// starters makes a folder with such programs, in the place of those that change rules.
func (s *scene) starters(n int) string {
	s.t.Helper()
	dir := s.t.TempDir()
	s.must(os.WriteFile(filepath.Join(dir, "count"), []byte("0\n"), 0o600))
	variant := map[lab.Backend]string{lab.IPTablesNFT: "-nft", lab.IPTablesLegacy: "-legacy"}[s.NetVM.Backend()]
	standsFor := map[string]string{"nft": "nft"}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, does := range []string{"", "-save", "-restore"} {
			standsFor[family+does] = family + variant + does
		}
	}
	for name, is := range standsFor {
		path, err := exec.LookPath(is)
		s.must(err)
		s.must(os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, starter, dir, n, path), 0o755))
	}
	return dir
}

// overDeaths plays a command in a fresh lab for each instant at which it can be killed. What comes after is told what
// the netvm looks like after each of the plays in which nobody is killed.
func overDeaths(t *testing.T, prepare func(*scene), command string, plays []func(*scene), after func(s *scene, n int, want []string)) {
	for backend, calls := range deaths {
		var want []string
		for i, play := range plays {
			t.Run(fmt.Sprintf("%s undisturbed %d", backend, i), func(t *testing.T) {
				s := open(t, lab.Options{Backend: backend, VifRoute: plainProgram})
				play(s)
				want = append(want, s.dump())
			})
		}
		for _, call := range calls {
			t.Run(string(backend)+" at "+call, func(t *testing.T) {
				for n, killed := 1, true; killed; n += min(n, strides[backend]) {
					if n > maxDeaths {
						t.Fatalf("no end after %d", n)
					}
					t.Run(fmt.Sprint(n), func(t *testing.T) {
						s := open(t, lab.Options{Backend: backend, VifRoute: plainProgram})
						prepare(s)
						if killed = s.kill(command, s.Work.Card, call, n); killed {
							s.mustBeGuarded()
							after(s, n, want)
						}
					})
				}
			})
		}
	}
}

// mustBeGuarded wants that a vif that is up sends from its own addresses alone.
func (s *scene) mustBeGuarded() {
	s.t.Helper()
	if link, err := s.NetVM.Run(s.ctx, "ip", "-o", "link", "show", "vif1.0", "up"); err != nil || link == "" {
		return
	}
	uplink := s.tap("the uplink", s.Home.Host, "lan0")
	s.must(s.Work.Send(s.ctx, "eth0",
		s.packet(s.Personal.Address, lab.Internet, lab.Echo{ID: 1, Payload: []byte("<forged>")}),
		s.packet(s.Personal.Address6, s.Home.Router6.Addr(), lab.Echo{ID: 1, Payload: []byte("<forged>")}),
		s.packet(s.Work.Address, lab.Internet, lab.Echo{ID: 1, Payload: []byte("<right>")}),
		s.packet(s.Work.Address6, s.Home.Router6.Addr(), lab.Echo{ID: 1, Payload: []byte("<right>")})))
	s.say(s.Home.Router.Addr(), "<over>") // when that has come, all before it has
	uplink.await("<over>")
	uplink.mustNotHave("forged")
	rules := s.rules()
	for _, want := range []string{s.Work.Address.String(), s.Work.Address6.String()} {
		if !strings.Contains(rules, want) {
			s.t.Errorf("the link is up, and no antispoof entry has %s:\n%s", want, rules)
		}
	}
	// What was sent rightly began flows, which a run that has nothing left to do does not forget. conntrack fails where
	// there is none.
	for _, of := range []netip.Addr{s.Work.Address, s.Work.Address6} {
		s.netvm("conntrack -D -s " + of.String() + " 2>/dev/null || true")
	}
}

// say sends a datagram of the netvm's own.
func (s *scene) say(to netip.Addr, token string) {
	s.t.Helper()
	s.must(s.NetVM.Do(func() error {
		conn, err := net.Dial("udp", netip.AddrPortFrom(to, 7777).String())
		if err != nil {
			return err
		}
		_, err = conn.Write([]byte(token))
		return errors.Join(err, conn.Close())
	}))
}

// rules are those against spoofing.
func (s *scene) rules() string {
	s.t.Helper()
	return s.netvm(map[lab.Backend]string{
		lab.NFTables:       "nft list set ip netvmd allowed; nft list set ip6 netvmd allowed; nft list set arp netvmd allowed",
		lab.IPTablesNFT:    "iptables-nft-save -t raw; ip6tables-nft-save -t raw",
		lab.IPTablesLegacy: "iptables-legacy-save -t raw; ip6tables-legacy-save -t raw",
	}[s.NetVM.Backend()])
}

func TestAKilledOnlineIsCompletedByTheNextCommand(t *testing.T) {
	plug := func(s *scene) { s.must(s.NetVM.AddCard(s.Work.Card)) }
	online := func(s *scene) {
		plug(s)
		s.hotplug("online", s.Work.Card)
	}
	offline := func(s *scene) {
		s.must(s.NetVM.RemoveCard(s.Work.Card))
		s.hotplug("offline", s.Work.Card)
	}
	both := func(s *scene) { online(s); offline(s) }
	overDeaths(t, plug, "online", []func(*scene){online, both}, func(s *scene, n int, want []string) {
		if n%3 != 0 {
			s.hotplug("online", s.Work.Card)
			same(s.t, "after the second online", s.dump(), want[0])
			return
		}
		offline(s)
		both(s) // which loads the rules, if the killed one did not
		same(s.t, "after offline", s.dump(), want[1])
	})
}

func TestAKilledOfflineIsCompletedByTheNextCommand(t *testing.T) {
	for name, gone := range map[string]bool{"the device is gone": true, "the device is there": false} {
		t.Run(name, func(t *testing.T) {
			bring := func(s *scene) {
				s.attach(s.Personal, s.Work)
				if gone {
					s.must(s.NetVM.RemoveCard(s.Work.Card))
				}
			}
			undisturbed := func(s *scene) {
				bring(s)
				s.hotplug("offline", s.Work.Card)
			}
			overDeaths(t, bring, "offline", []func(*scene){undisturbed}, func(s *scene, _ int, want []string) {
				s.hotplug("offline", s.Work.Card)
				same(s.t, "after the second offline", withoutSettings(s.dump()), withoutSettings(want[0]))
			})
		})
	}
}
