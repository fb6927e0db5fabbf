package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"netvmd/internal/lab"
)

func TestMain(m *testing.M) {
	commands := map[string]func() int{"netvmctl": func() int { return run(os.Args[1:], os.Stdout, os.Stderr) }}
	if commands[filepath.Base(os.Args[0])] == nil { // the tests themselves, not netvmctl in a script of theirs
		if err := lab.Enter(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(testscript.RunMain(m, commands))
}

// box is a machine without a toolstack, with a configuration of its own.
type box struct {
	t       *testing.T
	backend string
	dir     string
}

func overBackends(t *testing.T, test func(*box)) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			b := &box{t, backend, t.TempDir()}
			b.shell("nft flush ruleset")
			b.write("netvmd.toml", fmt.Sprintf("runtime_dir = %q\n[firewall]\nbackend = %q\n[store]\nkind = \"none\"\n",
				filepath.Join(b.dir, "run"), backend))
			test(b)
		})
	}
}

func (b *box) write(name, text string) {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) shell(command string) {
	b.t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		b.t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// ctl runs netvmctl and wants an exit code; it returns what was printed to standard output.
func (b *box) ctl(code int, args ...string) string {
	b.t.Helper()
	var o, c strings.Builder
	if got := run(append([]string{"--config", filepath.Join(b.dir, "netvmd.toml")}, args...), &o, &c); got != code {
		b.t.Errorf("netvmctl %q: exit %d, want %d\n%s%s", args, got, code, o.String(), c.String())
	}
	return o.String()
}

// damage removes a rule of ours.
func (b *box) damage() {
	b.t.Helper()
	b.shell(map[string]string{"nftables": "nft flush chain ip netvmd antispoof", "iptables": "iptables -t raw -F QBS-SPOOF"}[b.backend])
}

// says fails unless the text contains all the words.
func (b *box) says(text string, words ...string) {
	b.t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			b.t.Errorf("%q is not in:\n%s", w, text)
		}
	}
}

func TestFirewallIsLoadedOnceAndChecked(t *testing.T) {
	overBackends(t, func(b *box) {
		out := b.ctl(exitFine, "firewall", "show")
		b.says(out, "No rules of netvmd are loaded")
		out = b.ctl(exitFailed, "firewall", "check")
		b.says(out, b.backend+": ", "10.139.1.2 is neither led to a resolver nor refused")
		out = b.ctl(exitFine, "firewall", "load")
		b.says(out, "ruleset loaded", "10.139.1.1: now refused")
		out = b.ctl(exitFine, "firewall", "load")
		b.says(out, "already loaded ("+b.backend+")")
		out = b.ctl(exitFine, "firewall", "check")
		b.says(out, "as it must be")
		b.damage()
		b.ctl(exitFailed, "firewall", "check")
		b.ctl(exitFine, "firewall", "load")
		b.ctl(exitFine, "firewall", "check")
		out = b.ctl(exitFine, "firewall", "show")
		b.says(out, "10.139.1.1    refused at once", "MAY SEND FROM\nnone")
	})
}

// record is what an AppVM's vif was brought up with.
const record = `{"name":"vif4.0","domid":4,"addresses":["10.137.0.11"],"visible_address":"","visible_gateway":"",
"mac":"00:16:3e:5e:6c:01","gateway":"10.137.0.6","gateway6":"","metric":32748,"state":"up","since":"2026-01-02T03:04:05Z"}`

func TestVifsAreAdmittedByTheirRecordsWhenAllWasLost(t *testing.T) {
	overBackends(t, func(b *box) {
		b.write("run/vifs/vif4.0.json", record)
		b.write("run/vifs/vif5.0.json", "nonsense")
		b.ctl(exitFine, "firewall", "load")
		out := b.ctl(exitFine, "firewall", "show", "--json")
		var h struct {
			Backend  string
			Targets  []struct{ Virtual, Resolver string } `json:"dns_targets"`
			Admitted []struct{ Vif, Address string }
			Counters []struct{ Table, Name string }
		}
		if err := json.Unmarshal([]byte(out), &h); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if h.Backend != b.backend || len(h.Targets) != 2 || len(h.Counters) == 0 ||
			fmt.Sprint(h.Admitted) != "[{vif4.0 10.137.0.11}]" {
			b.t.Errorf("%+v", h)
		}
		b.ctl(exitFine, "firewall", "check")
		b.write("run/vifs/vif4.0.json", strings.Replace(record, "10.137.0.11", "10.137.0.12", 1))
		out = b.ctl(exitFailed, "firewall", "check")
		b.says(out, "vif4.0 may not send from 10.137.0.12", "vif4.0 may send from 10.137.0.11, of which no record says so")
	})
}

func TestWhatIsDroppedIsCounted(t *testing.T) {
	overBackends(t, func(b *box) {
		b.ctl(exitFine, "firewall", "load")
		b.shell("ip link add up0 type veth peer name peer0 && ip addr add 192.0.2.1/24 dev up0 && ip link set up0 up && ip link set peer0 up")
		b.t.Cleanup(func() { b.shell("ip link del up0") })
		b.knock("peer0", "up0")
		out := b.ctl(exitFine, "firewall", "show")
		b.says(out, map[string]string{"nftables": "input-dropped", "iptables": "QBS-BASE-INPUT -j DROP"}[b.backend])
	})
}

// knock sends a UDP packet to port 9 of 192.0.2.1 out of a device, to the device at its other end.
func (b *box) knock(from, to string) {
	b.t.Helper()
	out, err := net.InterfaceByName(from)
	if err != nil {
		b.t.Fatal(err)
	}
	in, err := net.InterfaceByName(to)
	if err != nil {
		b.t.Fatal(err)
	}
	frame := slices.Concat(in.HardwareAddr, out.HardwareAddr, []byte{0x08, 0x00}, // Ethernet, of IPv4
		// RFC 791: 28 bytes from 192.0.2.2 to 192.0.2.1, UDP, with its checksum; RFC 768: from port 9 to port 9, no checksum.
		[]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0xf6, 0xcd, 192, 0, 2, 2, 192, 0, 2, 1}, []byte{0, 9, 0, 9, 0, 8, 0, 0})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: out.Index}); err != nil {
		b.t.Fatal(err)
	}
}

func TestWrongUsage(t *testing.T) {
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--help"}, exitFine, "Exit codes"},
		{[]string{"firewall", "load", "--help"}, exitFine, "no vif comes up"},
		{[]string{"version"}, exitFine, "netvmctl devel"},
		{[]string{"version", "--json"}, exitFine, `"version": "devel"`},
		{[]string{"completion", "bash"}, exitFine, "bash completion"},
		{[]string{"nonsense"}, exitUsage, `unknown command "nonsense"`},
		{[]string{"firewall"}, exitUsage, "load, check, show or unload is wanted"},
		{[]string{"firewall", "nonsense"}, exitUsage, `unknown command "nonsense"`},
		{[]string{"firewall", "load", "word"}, exitUsage, `"word"`},
		{[]string{"--nonsense"}, exitUsage, "--nonsense"},
		{[]string{"--config", "/does/not/exist", "firewall", "check"}, exitFailed, "/does/not/exist"},
	} {
		var out, complaints strings.Builder
		code := run(tc.args, &out, &complaints)
		if all := out.String() + complaints.String(); code != tc.code || !strings.Contains(strings.ToLower(all), strings.ToLower(tc.says)) {
			t.Errorf("netvmctl %q: exit %d, want %d and %q:\n%s", tc.args, code, tc.code, tc.says, all)
		}
	}
}

func TestHelpFitsATerminal(t *testing.T) {
	commands := newRoot().Commands()
	for len(commands) > 0 {
		c := commands[0]
		commands = append(commands[1:], c.Commands()...)
		for _, line := range strings.Split(c.Long+"\n"+c.Example, "\n") {
			if len(line) > 80 {
				t.Errorf("%s: %d columns: %s", c.CommandPath(), len(line), line)
			}
		}
	}
}
