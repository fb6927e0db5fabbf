package firewall

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestARehearsalChangesNothingAndFindsNothingMissingHere(t *testing.T) {
	overEmptyKernels(t, Options{}, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		rehearse(t, ctx, b)
		if changes, err := b.Ensure(ctx, []netip.Addr{virtual1}); err != nil || len(changes) == 0 {
			t.Errorf("the rehearsal loaded the rules: %q, %v", changes, err)
		}
		rehearse(t, ctx, b)
		if faults, err := b.Faults(ctx); err != nil || len(faults) > 0 {
			t.Errorf("the rehearsal left %q, %v", faults, err)
		}
		if rules := n.run("nft", "list", "ruleset"); strings.Contains(rules, probeTable) {
			t.Errorf("the rehearsal left a table:\n%s", rules)
		}
	})
}

func TestARehearsalIsNotMisledByWhatAnotherVersionLeft(t *testing.T) {
	ctx := testContext(t)
	newTopology(t).nft("table ip netvmd { set allowed { type ipv4_addr; }\n}\n")
	b, err := newNFTables(ctx, Options{Log: testLog(t)})
	must(t, err)
	rehearse(t, ctx, b)
}

func rehearse(t *testing.T, ctx context.Context, b Backend) {
	t.Helper()
	missing, _, err := b.Rehearse(ctx)
	must(t, err)
	if len(missing) > 0 {
		t.Errorf("missing: %q", missing)
	}
}

// instead stands for a program: it takes what it is given, prints the text and ends with the code.
func instead(t *testing.T, text, code string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "iptables")
	must(t, os.WriteFile(path+"-restore", []byte("#!/bin/sh\ncat >/dev/null\ncat <<'END'\n"+text+"\nEND\nexit "+code+"\n"), 0o755))
	return path
}

func TestARehearsalSaysWhatTheProgramMisses(t *testing.T) {
	ctx := testContext(t)
	refusal := "/dev/stdin:7:12-22: Error: Could not process rule: No such file or directory\n\tflowtable x { hook ingress priority filter\n\t          ^^^^^^^^^^^"
	for _, tc := range []struct {
		name, says, code string
		want             []string
	}{
		{"all is there", "", "0", nil},
		{"the kernel takes a line not", refusal, "1", []string{"flowtable x { hook ingress priority filter: Could not process rule: No such file or directory"}},
		{"it takes two not", refusal + "\n" + strings.Replace(refusal, "flowtable x", "flowtable y", 1), "1", []string{
			"flowtable x { hook ingress priority filter: Could not process rule: No such file or directory",
			"flowtable y { hook ingress priority filter: Could not process rule: No such file or directory",
		}},
		{"nft dies with other words", "netlink: Error: cache initialization failed: Operation not permitted", "1", []string{"cache initialization failed: Operation not permitted"}},
		{"nft dies without the word", "Speicherzugriffsfehler", "139", []string{"Speicherzugriffsfehler"}},
	} {
		b := &nftBackend{program: instead(t, tc.says, tc.code) + "-restore", patience: nftTimeout}
		got, err := b.rehearse(ctx, ownText)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("nft, %s: %q, %v; want %q", tc.name, got, err, tc.want)
		}
	}
	for _, tc := range []struct {
		name, says, code string
		want             []string
	}{
		{"all is there", "", "0", nil},
		{"a module is missing", "Warning: Extension devgroup revision 0 not supported, missing kernel module?", "0",
			[]string{"Warning: Extension devgroup revision 0 not supported, missing kernel module?"}},
		{"a target is missing", "iptables-restore: unknown option\nError occurred at line: 4", "2",
			[]string{"iptables-restore: unknown option", "Error occurred at line: 4"}},
		{"others' rules are there too", "# Warning: iptables-legacy tables present", "0", nil},
	} {
		program := instead(t, tc.says, tc.code)
		got, _, err := (&iptBackend{families: []*iptFamily{{v4: true, program: program}}}).Rehearse(ctx)
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], program+"-restore: ")
		}
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("iptables, %s: %q, %v; want %q", tc.name, got, err, tc.want)
		}
	}
}

func TestARehearsalThatCannotRunIsAnError(t *testing.T) {
	ctx := testContext(t)
	if _, _, err := (&nftBackend{program: "/does/not/exist", patience: nftTimeout}).Rehearse(ctx); err == nil {
		t.Error("nft: no error")
	}
	if _, _, err := (&iptBackend{families: []*iptFamily{{program: "/does/not/exist"}}}).Rehearse(ctx); err == nil {
		t.Error("iptables: no error")
	}
}

func TestWhoHasTheBaseAndWhoTranslates(t *testing.T) {
	overEmptyKernels(t, Options{}, func(t *testing.T, ctx context.Context, n *topology, b Backend) {
		mustOwn := func(want bool, translations int) {
			t.Helper()
			own, err := b.OwnBase(ctx)
			must(t, err)
			count, err := QubesTranslations(ctx)
			must(t, err)
			if own != want || count != translations {
				t.Errorf("the base is ours: %t, want %t; %d rules of Qubes translate, want %d", own, want, count, translations)
			}
		}
		mustOwn(true, 0)
		n.nft(qubesTables + "table ip qubes { chain input { }\n}\ntable ip6 qubes { chain input { }\n}\n")
		mustOwn(false, 0)
		n.nft(`table ip qubes { chain dnat-dns { type nat hook prerouting priority dstnat; policy accept;
			ip daddr 10.139.1.1 udp dport 53 dnat to 192.0.2.1
			ip daddr 10.139.1.1 tcp dport 53 dnat to 192.0.2.1
		}
		}`)
		mustOwn(false, 2)
	})
}
