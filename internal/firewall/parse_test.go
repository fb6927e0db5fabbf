package firewall

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

func TestZonesAreNeverThatOfOtherTraffic(t *testing.T) {
	seen := map[uint16]int{}
	for i := range 1 << 16 {
		r := netvm.Resolver{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Interface: "wlan0"}
		seen[zoneOf(r)]++
	}
	if seen[0] != 0 {
		t.Errorf("%d resolvers got zone 0", seen[0])
	}
	if len(seen) < 1<<15 {
		t.Errorf("65536 resolvers share %d zones", len(seen))
	}
	a := netvm.Resolver{Addr: resolverA, Interface: "wlan0"}
	b := netvm.Resolver{Addr: resolverA, Interface: "eth0"}
	if zoneOf(a) == zoneOf(b) {
		t.Errorf("zones of the same address on two links: %d and %d", zoneOf(a), zoneOf(b))
	}
}

func TestRulesThatAreWrittenAreRead(t *testing.T) {
	want, err := wanted([]netvm.Target{to(virtual1, resolverA), unserved(virtual2), to(virtual6, resolverA6)})
	must(t, err)
	got := parseTargets(renderNAT(want), renderZones(want))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
}

func TestOnlyRulesOfOurFormAdmit(t *testing.T) {
	good := []netvm.Admission{{Vif: "vif1.0", Addr: client4}, {Vif: "vif2.0", Addr: other6}}
	got := parseAdmissions([]string{
		"-s 10.137.0.5/32 -i vif1.0 -j RETURN",
		"-s 10.137.0.5/32 -i vif9.0 -j RETURN",    // an address belongs to one vif
		"-s 10.137.0.0/24 -i vif3.0 -j RETURN",    // a network
		"-s 10.137.0.7/32 -i vif+ -j RETURN",      // all vifs
		"-s 10.137.0.8/32 -o vif3.0 -j RETURN",    // the wrong direction
		"-s 10.137.0.9/32 -i vif3.0 -j ACCEPT",    // another verdict
		"-s 10.137.0.10/32 ! -i vif3.0 -j RETURN", // the opposite
		"-s ::1/128 -i lo -j RETURN",              // no AppVM's
		"-i vif3.0 -j RETURN",
		"-s fd09:24ef:4179::a89:6/128 -i vif2.0 -j RETURN",
		"-j DROP",
	})
	if !slices.Equal(got, good) {
		t.Errorf("read %v, want %v", got, good)
	}
}

func TestWhatIptablesSaveDoesNotPrintIsAnError(t *testing.T) {
	for name, text := range map[string]string{
		"a rule before any table":    "-A PREROUTING -j ACCEPT\n",
		"a rule of an unknown chain": "*nat\n-A PREROUTING -j ACCEPT\n",
		"a line of an unknown kind":  "*nat\nhello\n",
		"an endless line":            "*nat\n:" + strings.Repeat("x", 2<<20),
		"a chain before any table":   ":PREROUTING ACCEPT [0:0]\n",
	} {
		if rules, err := parseSave(text); err == nil {
			t.Errorf("%s: read as %v", name, rules)
		}
	}
}

func FuzzParseSave(f *testing.F) {
	f.Add("# Generated\n*nat\n:PREROUTING ACCEPT [0:0]\n:PR-QBS - [0:0]\n:QBS-DNS-A - [0:0]\n-A PR-QBS -j QBS-DNS-A\n" +
		"-A QBS-DNS-A -d 10.139.1.1/32 -p udp -m udp --dport 53 -j DNAT --to-destination 192.0.2.1\nCOMMIT\n")
	f.Add("*raw\n:QBS-ZONE-A - [0:0]\n-A QBS-ZONE-A -d fd09::1/128 -p udp -m udp --dport 53 -j CT --zone-orig 65535\n")
	f.Add("*raw\n:QBS-ALLOWED - [0:0]\n-A QBS-ALLOWED -s fd09::5/128 -i vif1.0 -j RETURN\n-A QBS-ALLOWED -j DROP\nCOMMIT\n")
	f.Add("*raw\n[3:180] -A QBS-ALLOWED -j DROP\n[0:0] -A QBS-SPOOF -s fd09::5/128 -j DROP\nCOMMIT\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range parseCounters("ip", text) {
			if !strings.Contains(text, c.Name) {
				t.Errorf("counter %q is not of the text", c.Name)
			}
		}
		rules, err := parseSave(text)
		if err != nil {
			return
		}
		for _, chains := range rules {
			for _, chain := range chains {
				admitted := parseAdmissions(chain)
				for _, a := range admitted {
					if err := checkAdmission(a); err != nil {
						t.Error(err)
					}
				}
				var written []string
				for _, a := range admitted {
					written = append(written, allowRule(a))
				}
				if again := parseAdmissions(written); !slices.Equal(again, admitted) {
					t.Errorf("%v was read, written, and read as %v", admitted, again)
				}
				got := parseTargets(chain, chain)
				again := parseTargets(renderNAT(got), nil)
				for v, e := range again {
					if got[v].resolver.IsValid() && e.resolver != got[v].resolver {
						t.Errorf("%s: %v was read, written, and read as %v", v, got[v], e)
					}
				}
			}
		}
	})
}

func FuzzDecodeNFTables(f *testing.F) {
	name := append([]byte{8 + 3, 0, unix.NFTA_TABLE_NAME, 0}, "netvmd\x00\x00"...)
	f.Add(uint16(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE), append([]byte{2, 0, 0, 0}, name...))
	f.Add(uint16(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN), []byte{0, 0, 0, 0, 8, 0, 2, 0, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, kind uint16, data []byte) {
		ours := map[nftTableName]bool{{2, "netvmd"}: true}
		var seen transaction
		if _, done := seen.take(kind, data, ours); done {
			t.Error("the end of a transaction that touched nothing was reported")
		}
		if elements, err := decodeElements(data); err == nil && len(elements) > len(data) {
			t.Errorf("%d elements in %d bytes", len(elements), len(data))
		}
	})
}

func FuzzInotify(f *testing.F) {
	event := binary.NativeEndian.AppendUint32(nil, 1)
	event = binary.NativeEndian.AppendUint32(event, unix.IN_CLOSE_NOWRITE)
	f.Add(append(event, 0, 0, 0, 0, 0, 0, 0, 0))
	f.Add(append(event, 0, 0, 0, 0, 255, 255, 255, 255))
	f.Fuzz(func(t *testing.T, events []byte) {
		one, two := inotifyMask(events, 1), inotifyMask(slices.Concat(events, events), 1)
		if one&^two != 0 {
			t.Errorf("mask %x of the events alone is not within %x", one, two)
		}
	})
}

// FuzzDecodeFlow looks for a conntrack message that stops the purge.
func FuzzDecodeFlow(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 20, 0, 1, 0x80, 16, 0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0, 6, 0, 3, 0, 0, 53, 0, 0})
	f.Fuzz(func(t *testing.T, message []byte) {
		decoded, err := decodeFlow(message)
		if again, err2 := decodeFlow(message); again != decoded || (err == nil) != (err2 == nil) {
			t.Errorf("%v, %v and then %v, %v", decoded, err, again, err2)
		}
	})
}
