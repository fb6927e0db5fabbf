package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"netvmd/internal/lab"
)

// served is a domain that a netvm serves, without a bus: its QubesDB, a card whose other end nobody listens at, and files.
type served struct {
	*box
	store *lab.QubesDB
	conf  string
}

const guestMAC = "00:16:3e:5e:6c:0b"

func newServed(t *testing.T) *served {
	t.Helper()
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/no-bus-at-all")
	dir, err := os.MkdirTemp("", "served") // t.TempDir's path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	s := &served{box: &box{t, "nftables", dir}, conf: filepath.Join(dir, "netvmd.toml")}
	s.store, err = lab.StartQubesDB(filepath.Join(dir, "qubesdb"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.store.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	for key, value := range map[string]string{"/qubes-mac": guestMAC, "/qubes-ip": "10.137.0.11", "/qubes-gateway": "10.137.0.6",
		"/qubes-primary-dns": "10.139.1.1", "/qubes-secondary-dns": "10.139.1.2", "/qubes-ip6": "fd09::b", "/qubes-gateway6": "fe80::1"} {
		s.store.Set(key, value)
	}
	s.write("netvmd.toml", fmt.Sprintf("runtime_dir = \"%[1]s/run\"\n[dns]\nresolv_conf = \"%[1]s/resolv.conf\"\n"+
		"[store]\nkind = \"qubesdb\"\nqubesdb_socket = \"%[1]s/qubesdb\"\n[hooks]\nip_change_hook = \"%[1]s/qubes-ip-change-hook\"\n", dir))
	s.write("resolv.conf", "# somebody's own\nnameserver 192.0.2.1\n")
	s.plug()
	return s
}

// plug gives the domain a card.
func (s *served) plug() {
	s.t.Helper()
	mac, err := net.ParseMAC(guestMAC)
	if err != nil {
		s.t.Fatal(err)
	}
	card := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", HardwareAddr: mac, TxQLen: 1000}, PeerName: "vif1.0"}
	if err := netlink.LinkAdd(card); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.shell("! ip link show eth0 >/dev/null 2>&1 || ip link delete eth0") })
	s.shell("ip link set vif1.0 group 2 up") // group 2: the netvm's end, which is no card of this domain
}

// state is all that an uplink could change, but for the lock files.
func (s *served) state() string {
	s.t.Helper()
	out, err := exec.Command("sh", "-c", `cd "$0"
ip -o link show eth0 | sed -E 's/^[0-9]+: //; s/@[a-z0-9.]+//; s/ state [A-Z]+ / /; s/NO-CARRIER,|,LOWER_UP|,M-DOWN//g; s/qdisc [a-z]+ //'
ip -o address show dev eth0 | grep -v 'inet6 fe80:' | cut -d: -f2-
ip -4 route show table all | sed -E 's/ linkdown| dead//g' | sort
ip -6 route show table all | grep -Ev '^fe80:|^local fe80:|^multicast ff00|^anycast' | sed -E 's/ linkdown| dead//g' | sort
ip neighbour show nud permanent | sort
cat /proc/sys/net/ipv6/conf/eth0/accept_ra
cat resolv.conf
find . -type f ! -name '*.lock' ! -name '*hook*' | sort`, s.dir).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func (s *served) same(what, want string) {
	s.t.Helper()
	if is := s.state(); is != want {
		s.t.Errorf("%s:\n%s\nwant:\n%s", what, is, want)
	}
}

func TestUplinkSaysWhatItChanges(t *testing.T) {
	s := newServed(t)
	before := s.state()
	s.store.Set("/qubes-ip6", "")
	want := `put into group 1
set sysctl net/ipv6/conf/eth0/accept_ra to 0
added the address 10.137.0.11/32
set the neighbour 10.137.0.6 to fe:ff:ff:ff:ff:ff
set the neighbour 10.139.1.1 to fe:ff:ff:ff:ff:ff
set the neighbour 10.139.1.2 to fe:ff:ff:ff:ff:ff
set up
added the route default on the link
wrote ` + s.dir + `/resolv.conf
`
	if is := s.ctl(exitFine, "uplink", "up", "eth0"); is != want {
		t.Errorf("up says\n%s", is)
	}
	if is := s.ctl(exitFine, "uplink", "up", "eth0"); is != "nothing to change\n" {
		t.Errorf("up again says\n%s", is)
	}
	var result struct {
		Way            string
		Changes, Notes []string
	}
	if err := json.Unmarshal([]byte(s.ctl(exitFine, "uplink", "up", "eth0", "--json")), &result); err != nil ||
		result.Way != "resolv.conf" || result.Changes == nil || len(result.Changes)+len(result.Notes) > 0 {
		t.Errorf("as JSON: %+v, %v", result, err)
	}
	if is := s.ctl(exitFine, "uplink", "show"); !regexp.MustCompile(`(?s)Interface +eth0, 00:16.*Address +10\.137\.0\.11/32.*Nameserver +10\.139\.1\.1.*has it so`).MatchString(is) {
		t.Errorf("show says\n%s", is)
	}
	if is := s.ctl(exitFine, "uplink", "down", "eth0"); !strings.HasPrefix(is, "set down\nrestored "+s.dir+"/resolv.conf\n") {
		t.Errorf("down says\n%s", is)
	}
	s.same("down", before)
	if is := s.ctl(exitFine, "uplink", "down", "eth0", "--json"); !strings.Contains(is, `"changes": []`) {
		t.Errorf("down again says\n%s", is)
	}
}

func TestUplinkRefusesWhatTheStoreDoesNotSay(t *testing.T) {
	s := newServed(t)
	before := s.state()
	for name, tc := range map[string]struct {
		key, value string
		args       []string
		want       string
	}{
		"no address":          {"/qubes-ip", "", []string{"up", "eth0"}, "qubesdb: /qubes-ip is missing"},
		"no address, to show": {"/qubes-ip", "", []string{"show"}, "qubesdb: /qubes-ip is missing"},
		"no gateway":          {"/qubes-gateway", "", []string{"up", "eth0"}, "qubesdb: /qubes-gateway is missing"},
		"no gateway, to show": {"/qubes-gateway", "", []string{"show", "eth0"}, "qubesdb: /qubes-gateway is missing"},
		"another MAC":         {"/qubes-mac", "00:16:3e:00:00:99", []string{"up", "eth0"}, "which no interface has; eth0 has " + guestMAC},
		"another interface":   {"/x", "", []string{"up", "eth7"}, "eth7: there is no such network card; there are: eth0"},
		"no interface's name": {"/x", "", []string{"down", "../eth0"}, "is no name of a network interface"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &served{box: &box{t, "", s.dir}, store: s.store, conf: s.conf}
			if tc.key == "/qubes-ip" {
				s.store.Delete("/qubes-ip6")
				defer s.store.Set("/qubes-ip6", "fd09::b")
			}
			defer s.store.Set(tc.key, map[string]string{"/qubes-ip": "10.137.0.11", "/qubes-gateway": "10.137.0.6", "/qubes-mac": guestMAC}[tc.key])
			s.store.Set(tc.key, tc.value)
			var out, said strings.Builder
			code := run(append([]string{"--config", s.conf, "uplink"}, tc.args...), &out, &said)
			if code != exitFailed || out.String() != "" || !strings.Contains(said.String(), tc.want) || strings.Count(said.String(), "\n") != 1 {
				t.Errorf("exit %d, %q, %q", code, out.String(), said.String())
			}
			s.same("afterwards", before)
		})
	}
}

func TestTheHooksOfAnUplinkRunAfterAChange(t *testing.T) {
	s := newServed(t)
	for _, name := range []string{"qubes-ip-change-hook", oldIPChangeHook} {
		s.write(name, "#!/bin/sh\nset -u\necho \"$0 $# $INTERFACE\" >>"+s.dir+"/hooked\n")
		s.shell("chmod 755 " + s.dir + "/" + name)
	}
	for range 2 { // the second changes nothing
		s.ctl(exitFine, "uplink", "up", "eth0")
	}
	text, err := os.ReadFile(s.dir + "/hooked")
	want := fmt.Sprintf("%[1]s/qubes-ip-change-hook 0 eth0\n%[1]s/qubes_ip_change_hook 0 eth0\n", s.dir)
	if err != nil || string(text) != want {
		t.Errorf("they were run so: %q, %v", text, err)
	}
}

// buildPlain builds netvmctl without the race detector, for what runs it hundreds of times.
var buildPlain = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "netvmctl")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "netvmctl")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build netvmctl: %w: %s", err, out)
	}
	return path, err
})

// kill runs a command under strace, which kills it at the n-th call of a kind; false = it was over before.
func (s *served) kill(call string, n int, args ...string) bool {
	s.t.Helper()
	program, err := buildPlain()
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "strace", append([]string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n), program, "--config", s.conf, "uplink"}, args...)...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1") // fewer threads, so that one of them gets far
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || len(out) > 0 && strings.Contains(string(out), "netvmctl:")) {
		s.t.Fatalf("%v: %s", err, out)
	}
	return err != nil
}

// deaths are the system calls with which netvmctl changes something, and how many of a kind are left out.
var deaths = map[string]int{"sendto": 5, "renameat": 1, "unlinkat": 1, "fchmod": 2, "write": 3}

// maxDeaths is more than a run has calls of one kind.
const maxDeaths = 200

// overDeaths kills a command at each instant at which it changes something; between, the domain is as it was before.
func overDeaths(t *testing.T, prepare func(*served), args []string, after func(s *served, before string, n int)) {
	s := newServed(t)
	before := s.state()
	for call, stride := range deaths {
		for n, killed := 1, true; killed; n += stride {
			if n > maxDeaths {
				t.Fatalf("no end after %d calls of %s", n, call)
			}
			prepare(s)
			killed = s.kill(call, n, args...)
			after(s, before, n)
			if t.Failed() {
				t.Fatalf("killed at %s %d", call, n)
			}
		}
	}
}

func TestAKilledUpIsRevertedOrCompleted(t *testing.T) {
	var whole string
	s := newServed(t)
	s.ctl(exitFine, "uplink", "up", "eth0")
	whole = indices.ReplaceAllString(strings.ReplaceAll(s.state(), s.dir, ""), "")
	s.ctl(exitFine, "uplink", "down", "eth0")
	s.shell("ip link delete eth0")
	overDeaths(t, func(*served) {}, []string{"up", "eth0"}, func(s *served, before string, n int) {
		if n%2 == 0 {
			s.ctl(exitFine, "uplink", "up", "eth0")
			if is := indices.ReplaceAllString(strings.ReplaceAll(s.state(), s.dir, ""), ""); is != whole {
				t.Errorf("completed:\n%s\nwant:\n%s", is, whole)
			}
		}
		s.ctl(exitFine, "uplink", "down", "eth0")
		s.same("reverted", before)
	})
}

// indices are what differs from card to card.
var indices = regexp.MustCompile(`(?m)^[0-9]+: `)

func TestAKilledDownIsCompletedByTheNext(t *testing.T) {
	overDeaths(t, func(s *served) { s.ctl(exitFine, "uplink", "up", "eth0") }, []string{"down", "eth0"},
		func(s *served, before string, _ int) {
			s.ctl(exitFine, "uplink", "down", "eth0")
			s.same("reverted", before)
		})
}

func TestTheNamesOfInterfacesAreCompleted(t *testing.T) {
	newServed(t)
	if names, _ := interfaces(nil, nil, ""); !slices.Equal(names, []string{"eth0"}) {
		t.Errorf("they are %q", names)
	}
}
