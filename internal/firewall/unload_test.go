package firewall

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// everything is all rules of everybody, and the limits of ICMP errors.
func (n *topology) everything() string {
	n.t.Helper()
	all := n.run("nft", "-s", "list", "ruleset")
	for _, program := range []string{"iptables-legacy-save", "ip6tables-legacy-save"} {
		for _, line := range strings.Split(n.run(program), "\n") {
			if !strings.HasPrefix(line, "#") {
				all += strings.Split(line, " [")[0] + "\n" // no counters
			}
		}
	}
	for _, path := range icmpLimits {
		text, err := os.ReadFile(path)
		must(n.t, err)
		all += path + " " + string(text)
	}
	return all
}

// strangers are rules of others in every table that netvmd has rules in, and in tables of their own.
func (n *topology) strangers() {
	n.t.Helper()
	n.nft(somebody + "table inet admin { set allowed { type ipv4_addr; }; chain forward { type filter hook forward priority 5; counter; }; }\n")
	for _, program := range []string{"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"} {
		for _, rule := range []string{
			"-N DOCKER", "-A FORWARD -o docker0 -j DOCKER", "-I INPUT -p tcp --dport 22 -j ACCEPT", "-t nat -N DOCKER",
			"-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER", "-t nat -A POSTROUTING -o docker0 -j MASQUERADE",
			"-t raw -A PREROUTING -p udp --dport 5000 -j CT --notrack",
		} {
			n.run(program, append([]string{"-w"}, strings.Fields(rule)...)...)
		}
	}
}

// unloads unloads a backend, and wants no error.
func (n *topology) unloads(ctx context.Context, b Backend, force bool) []string {
	n.t.Helper()
	changes, err := unloadOne(ctx, b, force)
	must(n.t, err)
	return changes
}

func unloadOne(ctx context.Context, b Backend, force bool) ([]string, error) {
	var limits refusals
	switch b := b.(type) {
	case *nftBackend:
		limits = b.refusals
	case *iptBackend:
		limits = b.refusals
	}
	return unload(ctx, []remover{b.(remover)}, limits, force)
}

func TestUnloadingLeavesWhatWasThereBefore(t *testing.T) {
	overEmptyKernels(t, Options{Lock: filepath.Join(t.TempDir(), "firewall.lock")}, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		n.strangers()
		before := n.everything()
		apply(t, ctx, b, to(virtual1, resolverA), unserved(virtual2), to(virtual6, resolverA6))
		n.admit(ctx, b)
		apply(t, ctx, b, to(virtual1, resolverB), unserved(virtual2), to(virtual6, resolverB6))
		n.openEverything(b)
		n.inCustomDNAT(b)
		changes := n.unloads(ctx, b, true)
		if len(changes) < 3 {
			t.Errorf("it says only %q", changes)
		}
		if after := n.everything(); after != before {
			t.Errorf("there was\n%s\nand there is\n%s", before, after)
		}
		if again := n.unloads(ctx, b, false); len(again) != 0 {
			t.Errorf("the second time it says %q", again)
		}
		if loaded, err := b.Loaded(ctx); loaded || err != nil {
			t.Errorf("loaded: %v, %v", loaded, err)
		}
		// It can begin anew.
		apply(t, ctx, b, to(virtual1, resolverA))
		n.admit(ctx, b)
		n.mustReach(virtual1, resolverA)
	})
}

func TestWhatIsHalfThereIsUnloaded(t *testing.T) {
	damages := map[string][]string{
		"nftables": {"nft delete table ip6 netvmd", "nft flush chain ip netvmd input", "nft flush table ip netvmd", "nft delete set arp netvmd ruleset-seal"},
		"iptables": {"iptables -w -t raw -D PREROUTING -j QBS-SPOOF", "iptables -w -t raw -F", "iptables -w -t nat -F PREROUTING",
			"iptables -w -F; iptables -w -X", "iptables -w -t raw -I PREROUTING 2 -j QBS-SPOOF",
			"iptables -w -t nat -A PR-QBS -j QBS-DNS-A || iptables -w -t nat -A PR-QBS -j QBS-DNS-B",
			"iptables -w -t nat -N QBS-DNS-B || iptables -w -t nat -N QBS-DNS-A"},
	}
	overEmptyKernels(t, Options{Lock: filepath.Join(t.TempDir(), "firewall.lock")}, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		for _, command := range damages[b.Name()] {
			apply(t, ctx, b, to(virtual1, resolverA), to(virtual6, resolverA6))
			if ipt, is := b.(*iptBackend); is {
				command = strings.ReplaceAll(command, "iptables", ipt.families[0].program)
			}
			n.run("sh", "-c", command)
			if changes := n.unloads(ctx, b, false); len(changes) == 0 {
				t.Errorf("after %q nothing was there", command)
			}
			if after := n.everything(); slices.ContainsFunc([]string{"QBS", "custom-", ownTable}, func(ours string) bool { return strings.Contains(after, ours) }) {
				t.Errorf("after %q there is\n%s", command, after)
			}
		}
	})
}

func TestNothingIsUnloadedThatAnAppVMNeeds(t *testing.T) {
	overBackends(t, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		apply(t, ctx, b, to(virtual1, resolverA))
		before := n.everything()
		changes, err := unloadOne(ctx, b, false)
		if !errors.Is(err, ErrNeeded) || !strings.HasPrefix(err.Error(), "vif1.0, vif2.0: ") || len(changes) != 0 {
			t.Errorf("%q, %v; want that vif1.0 and vif2.0 need it", changes, err)
		}
		if after := n.everything(); after != before {
			t.Errorf("there was\n%s\nand there is\n%s", before, after)
		}
		n.mustReach(virtual1, resolverA)

		// A domain that died without a word leaves its admission.
		for _, name := range []string{"vif1.0", "vif2.0"} {
			link, err := netlink.LinkByName(name)
			must(t, err)
			must(t, netlink.LinkDel(link))
		}
		n.unloads(ctx, b, false)
	})
}

func TestWhereQubesTakesOverAppVMsGoOn(t *testing.T) {
	ctx := testContext(t)
	n := newTopology(t)
	n.nft(qubesTables)
	n.nft(`table ip qubes { chain dnat-dns { type nat hook prerouting priority dstnat; ip daddr 10.139.1.1 udp dport 53 dnat to 192.0.2.2
		ip daddr 10.139.1.1 tcp dport 53 dnat to 192.0.2.2; }; }`)
	b, err := newNFTables(ctx, Options{Log: testLog(t)})
	must(t, err)
	apply(t, ctx, b, to(virtual1, resolverA))
	n.admit(ctx, b)
	n.mustReach(virtual1, resolverA)
	conn, err := n.dial("tcp", netip.AddrPortFrom(virtual1, dnsPort), 0)
	must(t, err)
	defer conn.Close()
	theirs := n.run("nft", "-s", "list", "table", "ip", "qubes")
	n.unloads(ctx, b, false)
	if after := n.run("nft", "-s", "list", "table", "ip", "qubes"); after != theirs || !strings.Contains(after, `"vif1.0" . 10.137.0.5`) {
		t.Errorf("Qubes' own table was\n%s\nand is\n%s", theirs, after)
	}
	n.mustReach(virtual1, resolverB)
	if who, err := query(conn, "an old connection"); err != nil || who != resolverA.String() {
		t.Errorf("an established connection ends with %q, %v", who, err)
	}
}

func TestAVifThatComesMeanwhileIsNotLeftOpen(t *testing.T) {
	overEmptyKernels(t, Options{Lock: filepath.Join(t.TempDir(), "firewall.lock")}, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		_, err := b.Ensure(ctx, nil)
		must(t, err)
		n.unloads(ctx, b, false)
		if err := b.Admit(ctx, "vif1.0", []netip.Addr{client4}); err == nil {
			t.Error("it is admitted to rules that are gone")
		}
	})
}

func TestChainsThatOthersUseStay(t *testing.T) {
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			ctx := testContext(t)
			n := newTopology(t)
			save := func() string {
				return n.run("sh", "-c", program+"-save | grep -v '^[#:]'; "+program+"-save | grep -o '^:[^ ]*'")
			}
			n.run(program, "-w", "-t", "nat", "-N", chainNAT)
			n.unloads(ctx, reopened(t, ctx, program), false)
			// Qubes' scripts of the iptables times, whose chain is still there, and an admin with the same idea as we.
			for _, rule := range []string{"-t nat -A PREROUTING -j PR-QBS", "-t nat -A PR-QBS -d 10.139.1.1 -p udp --dport 53 -j DNAT --to 192.0.2.9",
				"-N custom-input", "-A custom-input -p tcp --dport 22 -j ACCEPT", "-t raw -A PREROUTING -p udp --dport 5000 -j ACCEPT"} {
				n.run(program, append([]string{"-w"}, strings.Fields(rule)...)...)
			}
			b, err := newIPTables(ctx, program, Options{Log: testLog(t)})
			must(t, err)
			before := save()
			if changes := n.unloads(ctx, b, false); len(changes) != 0 {
				t.Errorf("it deleted what is not ours: %q", changes)
			}
			if after := save(); after != before {
				t.Errorf("there was\n%s\nand there is\n%s", before, after)
			}

			apply(t, ctx, b, to(virtual1, resolverA))
			n.run(program, "-w", "-A", "OUTPUT", "-j", "custom-forward")
			changes := n.unloads(ctx, b, false)
			if text := strings.Join(changes, "\n"); !strings.Contains(text, "custom-forward emptied") || !strings.Contains(text, "PR-QBS emptied") {
				t.Errorf("it says %q", changes)
			}
			after := save()
			for _, rule := range []string{"-A OUTPUT -j custom-forward", "-A PREROUTING -j PR-QBS", ":PR-QBS", "--dport 5000"} {
				if !strings.Contains(after, rule) {
					t.Errorf("%q is gone:\n%s", rule, after)
				}
			}
			if strings.Contains(after, "QBS-DNS") || strings.Contains(after, "QBS-BASE") {
				t.Errorf("something of ours is left:\n%s", after)
			}
			if again := n.unloads(ctx, b, false); len(again) != 0 {
				t.Errorf("the second time it says %q", again)
			}
		})
	}
}

func TestBothBackendsAreUnloaded(t *testing.T) {
	ctx := testContext(t)
	n := newTopology(t)
	o := Options{Lock: filepath.Join(t.TempDir(), "firewall.lock"), Log: testLog(t)}
	before := n.everything()
	for _, kind := range []string{KindIPTables, KindNFTables} { // as when firewall.backend was changed
		o.Kind = kind
		b, err := New(ctx, o)
		must(t, err)
		apply(t, ctx, b, to(virtual1, resolverA))
	}
	o.Kind = KindAuto
	changes, err := Unload(ctx, o, false)
	must(t, err)
	for _, name := range []string{KindNFTables, KindIPTables} {
		if !slices.ContainsFunc(changes, func(c string) bool { return strings.HasPrefix(c, name+": ") }) {
			t.Errorf("nothing of %s in %q", name, changes)
		}
	}
	if after := n.everything(); strings.Contains(after, "QBS") || strings.Contains(after, ownTable) {
		t.Errorf("there was\n%s\nand there is\n%s", before, after)
	}
	o.Kind = "nonsense"
	t.Setenv("PATH", t.TempDir())
	if changes, err := Unload(ctx, o, false); err != nil || len(changes) != 0 {
		t.Errorf("once more: %q, %v", changes, err)
	}
}

func TestLimitsBecomeWhatTheyWere(t *testing.T) {
	overEmptyKernels(t, Options{Lock: filepath.Join(t.TempDir(), "run", "firewall.lock")}, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		for _, step := range []struct {
			name                string
			before, since, want string // of IPv4; "" = as before
		}{
			{name: "as the admin had it", before: "2000\n", want: "2000\n"},
			{name: "set by somebody else meanwhile", before: "2000\n", since: "500\n", want: "500\n"},
			{name: "lifted by the admin", before: "0\n", want: "0\n"},
		} {
			must(t, os.WriteFile(icmpLimits[0], []byte(step.before), 0o644))
			six, err := os.ReadFile(icmpLimits[1])
			must(t, err)
			apply(t, ctx, b, unserved(virtual1))
			if step.since != "" {
				must(t, os.WriteFile(icmpLimits[0], []byte(step.since), 0o644))
			}
			n.unloads(ctx, b, false)
			for path, want := range map[string]string{icmpLimits[0]: step.want, icmpLimits[1]: string(six)} {
				if text, err := os.ReadFile(path); err != nil || string(text) != want {
					t.Errorf("%s: %s is %q, %v; want %q", step.name, path, text, err, want)
				}
			}
		}
	})
}

func TestALimitMendedInBetweenIsTheFirstOne(t *testing.T) {
	overEmptyKernels(t, Options{Lock: filepath.Join(t.TempDir(), "firewall.lock")}, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		must(t, os.WriteFile(icmpLimits[0], []byte("2000\n"), 0o644))
		apply(t, ctx, b, unserved(virtual1))
		must(t, os.WriteFile(icmpLimits[0], []byte("500\n"), 0o644))
		_, err := b.Ensure(ctx, nil)
		must(t, err)
		apply(t, ctx, b, unserved(virtual1), unserved(virtual2))
		n.unloads(ctx, b, false)
		if text, err := os.ReadFile(icmpLimits[0]); err != nil || string(text) != "2000\n" {
			t.Errorf("it is %q, %v", text, err)
		}
	})
}

func FuzzParseLimits(f *testing.F) {
	f.Add([]byte(`{"/proc/sys/net/ipv4/icmp_ratelimit":1000}`))
	f.Add([]byte(`{"/etc/passwd":1}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		limits, err := parseLimits(text)
		for path, limit := range limits {
			if err != nil || limit <= 0 || !slices.Contains(icmpLimits, path) {
				t.Errorf("%q gives %v, %v", text, limits, err)
			}
		}
	})
}
