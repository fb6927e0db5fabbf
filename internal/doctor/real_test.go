package doctor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"netvmd/internal/config"
	"netvmd/internal/parts"
)

// run does something to the kernel in words of a shell.
func run(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// house is a real machine: this test's namespaces, with a configuration of its own.
type house struct {
	t    *testing.T
	path string
	conf config.Config
}

func newHouse(t *testing.T, backend string) *house {
	t.Helper()
	dir := t.TempDir()
	h := &house{t: t, path: filepath.Join(dir, "netvmd.toml")}
	text := fmt.Sprintf("runtime_dir = %q\n[firewall]\nbackend = %q\n[vif]\ngateway = \"10.137.0.6\"\n[store]\nkind = \"none\"\n", filepath.Join(dir, "run"), backend)
	if err := os.WriteFile(h.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.conf, err = config.Load(h.path); err != nil {
		t.Fatal(err)
	}
	run(t, "nft flush ruleset")
	return h
}

// load loads the rules as netvmctl does.
func (h *house) load() {
	h.t.Helper()
	ctx, m := deadline(h.t), newMachine(deadline(h.t), Options{Config: h.path})
	rules, err := parts.Firewall(ctx, h.conf, m.log)
	if err == nil {
		_, err = rules.Ensure(ctx, parts.Virtual(ctx, h.conf, m.log))
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// record writes that of a vif.
func (h *house) record(name, address string) {
	h.t.Helper()
	dir := filepath.Join(h.conf.RuntimeDir, "vifs")
	text := fmt.Sprintf(`{"name":%q,"domid":4,"addresses":[%q],"visible_address":"","visible_gateway":"",
"mac":"00:16:3e:5e:6c:01","gateway":"10.137.0.6","gateway6":"","metric":32748,"state":"up","since":"2026-01-02T03:04:05Z"}`, name, address)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// says wants these states, and the rest of them as before.
func (h *house) says(want map[string]State) map[string]Result {
	h.t.Helper()
	before := h.everything()
	got := map[string]Result{}
	for _, r := range Run(deadline(h.t), Options{Config: h.path, Version: "1"}) {
		got[r.ID] = r
	}
	for id, state := range want {
		if got[id].State != state {
			h.t.Errorf("%+v; want %s", got[id], state)
		}
	}
	if after := h.everything(); after != before {
		h.t.Errorf("the look changed the machine from\n%s to\n%s", before, after)
	}
	return got
}

// everything is what no check may change.
func (h *house) everything() string {
	h.t.Helper()
	const script = `nft -s list ruleset; sysctl -a 2>/dev/null | grep -E "ratelimit|forward"; find "$0" -printf "%p %m %C@\n"`
	out, err := exec.Command("sh", "-c", script, filepath.Dir(h.path)).Output()
	if err != nil {
		h.t.Fatal(err)
	}
	return string(out)
}

func TestARealMachine(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			h := newHouse(t, backend)
			sound := map[string]State{"configuration": OK, "permissions": OK, "store": OK, "kernel-rules": OK, "flowtable": OK,
				"conntrack": OK, "forwarding": OK, "reverse-path": OK, "base": OK, "qubes-dns": OK, "servers": OK, "ports": OK,
				"vifs": OK, "qubes-hotplug": OK, "qubes-hooks": OK}
			with := func(of map[string]State) map[string]State {
				all := map[string]State{}
				for id, state := range sound {
					all[id] = state
				}
				for id, state := range of {
					all[id] = state
				}
				return all
			}
			h.says(with(map[string]State{"firewall": Failed, "base": Failed, "dns": Failed}))
			h.load()
			h.says(with(map[string]State{"firewall": OK, "icmp-limit": OK, "dns": Warning}))
			h.record("vif4.0", "10.137.0.11")
			got := h.says(with(map[string]State{"firewall": Failed, "vifs": Failed}))
			if f := got["firewall"].Found; !strings.Contains(f, "vif4.0 may not send from 10.137.0.11") {
				t.Error(f)
			}
			run(t, "ip link add vif4.0 type veth peer name peer0")
			t.Cleanup(func() { run(t, "ip link del vif4.0") })
			got = h.says(with(map[string]State{"firewall": Failed, "vifs": Failed, "forwarding": Failed}))
			if f := got["vifs"].Found; !strings.Contains(f, "vif4.0: it may not send from 10.137.0.11, the device is in group 0 instead of 2") {
				t.Error(f)
			}
			h.says(with(map[string]State{"firewall": Failed, "vifs": Failed, "forwarding": Failed}))
			run(t, "nft flush ruleset")
			h.says(with(map[string]State{"firewall": Failed, "vifs": Failed, "forwarding": Failed, "base": Failed, "dns": Failed, "icmp-limit": OK}))
		})
	}
}

func TestQubesTablesBesideOurs(t *testing.T) {
	h := newHouse(t, "nftables")
	t.Cleanup(func() { run(t, "nft flush ruleset") })
	run(t, `for family in ip ip6; do nft "table $family qubes { chain input { }; chain forward { }; chain postrouting { }; }"; done
nft 'table ip qubes { chain dnat-dns { type nat hook prerouting priority dstnat; ip daddr 10.139.1.1 udp dport 53 dnat to 192.0.2.1; }; }'`)
	h.load()
	got := h.says(map[string]State{"base": OK, "qubes-dns": OK, "firewall": OK})
	for id, words := range map[string]string{"base": "Qubes", "qubes-dns": "DNS rules (1), of before netvmd took over"} {
		if f := got[id].Found; !strings.Contains(f, words) {
			t.Error(f)
		}
	}
}

func TestAMachineWithoutAFirewallToWorkWith(t *testing.T) {
	h := newHouse(t, "nftables")
	h.conf.Firewall.Backend = config.Backend("nonsense")
	m := newMachine(deadline(t), Options{Config: h.path})
	m.conf = h.conf
	k, err := readKernelRules(deadline(t), m)
	if f := k.judge(); err != nil || f.state != Failed || !strings.Contains(f.found, "nonsense") {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := readFirewall(deadline(t), m); err == nil {
		t.Error("what cannot be read is no error")
	}
}
