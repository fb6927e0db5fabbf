package uplink

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"netvmd/internal/lab"
	"netvmd/internal/store"
)

// toolstack is a machine's stores, and the folder with its service flags.
type toolstack struct {
	t       *testing.T
	options store.Options
}

func newToolstack(t *testing.T, kind string) *toolstack {
	t.Helper()
	dir, err := os.MkdirTemp("", "uplink") // t.TempDir's path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &toolstack{t, store.Options{Kind: kind, QubesDBSocket: filepath.Join(dir, "qubesdb"),
		XenStorePath: filepath.Join(dir, "xenstore"), ServiceDir: filepath.Join(dir, "service")}}
}

func (s *toolstack) closeAtEnd(c io.Closer) {
	s.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			s.t.Error(err)
		}
	})
}

// holds starts the store with these keys, and connects to it.
func (s *toolstack) holds(ctx context.Context, keys map[string]string) *store.Store {
	s.t.Helper()
	set := func(string, string) {}
	switch s.options.Kind {
	case store.QubesDB:
		q, err := lab.StartQubesDB(s.options.QubesDBSocket)
		if err != nil {
			s.t.Fatal(err)
		}
		s.closeAtEnd(q)
		set = q.Set
	case store.XenStore:
		x, err := lab.StartXenStore(s.options.XenStorePath)
		if err != nil {
			s.t.Fatal(err)
		}
		s.closeAtEnd(x)
		set = x.Set
	}
	for key, value := range keys {
		set(key, value)
	}
	from, err := store.Open(ctx, s.options)
	if err != nil {
		s.t.Fatal(err)
	}
	s.closeAtEnd(from)
	return from
}

// served is what Qubes writes for a domain that a netvm serves, with other keys over it; "" takes a key away.
func served(other map[string]string) map[string]string {
	keys := map[string]string{
		"/qubes-mac": mac1, "/qubes-ip": "10.137.0.11", "/qubes-netmask": "255.255.255.255", "/qubes-gateway": "10.137.0.6",
		"/qubes-primary-dns": "10.139.1.1", "/qubes-secondary-dns": "10.139.1.2",
	}
	for key, value := range other {
		if keys[key] = value; value == "" {
			delete(keys, key)
		}
	}
	return keys
}

// ownKeys are those of one card, by their last parts.
func ownKeys(parts ...string) map[string]string {
	keys := map[string]string{}
	for i := 0; i+1 < len(parts); i += 2 {
		keys["/net-config/"+mac1+"/"+parts[i]] = parts[i+1]
	}
	return keys
}

func merged(maps ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range maps {
		for key, value := range m {
			out[key] = value
		}
	}
	return out
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// asTheyAre has values of the standard library be compared as they are.
var asTheyAre = []cmp.Option{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}

func TestWhatTheStoreSaysOfAnInterface(t *testing.T) {
	eth0, eth1 := card{name: "eth0", mac: hardware(t, mac1)}, card{name: "eth1", mac: hardware(t, mac2)}
	alone := []card{eth0}
	plain := Spec{
		Interface: "eth0", MAC: eth0.mac, Keys: "qubesdb: /qubes-ip", Addresses: prefixes("10.137.0.11/32"),
		Gateway: netip.MustParseAddr("10.137.0.6"), Resolvers: addrs("10.139.1.1", "10.139.1.2"), DefaultRoute: true, DNS: true,
	}
	with := func(change func(*Spec)) Spec {
		out := plain
		change(&out)
		return out
	}
	for _, tc := range []struct {
		name  string
		kind  string
		cards []card
		keys  map[string]string
		want  Spec
	}{
		{"what Qubes writes", store.QubesDB, alone, served(nil), plain},
		{"IPv6 beside it, with a link-local gateway", store.QubesDB, alone,
			served(map[string]string{"/qubes-ip6": "fd09::b", "/qubes-gateway6": "fe80::fcff:ffff:feff:ffff"}),
			with(func(s *Spec) {
				s.Addresses = prefixes("10.137.0.11/32", "fd09::b/128")
				s.Gateway6 = netip.MustParseAddr("fe80::fcff:ffff:feff:ffff")
			})},
		{"IPv6 alone", store.QubesDB, alone,
			served(map[string]string{"/qubes-ip": "", "/qubes-ip6": "fd09::b", "/qubes-gateway6": "fd09::6", "/qubes-gateway": ""}),
			with(func(s *Spec) {
				s.Addresses, s.Gateway, s.Gateway6 = prefixes("fd09::b/128"), netip.Addr{}, netip.MustParseAddr("fd09::6")
			})},
		{"the gateway is the nameserver where no other is named", store.QubesDB, alone,
			served(map[string]string{"/qubes-primary-dns": "", "/qubes-secondary-dns": ""}),
			with(func(s *Spec) { s.Resolvers = addrs("10.137.0.6") })},
		{"an IPv6 nameserver", store.QubesDB, alone, served(map[string]string{"/qubes-secondary-dns": "fd09::a8b:1"}),
			with(func(s *Spec) { s.Resolvers = addrs("10.139.1.1", "fd09::a8b:1") })},
		{"one nameserver twice", store.QubesDB, alone, served(map[string]string{"/qubes-secondary-dns": "10.139.1.1"}),
			with(func(s *Spec) { s.Resolvers = addrs("10.139.1.1") })},
		{"the services switch the default route and the nameservers off", store.QubesDB, alone,
			served(map[string]string{"/qubes-service/disable-default-route": "1", "/qubes-service/disable-dns-server": "1"}),
			with(func(s *Spec) { s.DefaultRoute, s.DNS = false, false })},
		{"an empty service is off", store.QubesDB, alone, merged(served(nil), map[string]string{"/qubes-service/disable-dns-server": ""}), plain},
		{"a MAC in capitals", store.QubesDB, alone, served(map[string]string{"/qubes-mac": strings.ToUpper(mac1)}), plain},
		{"no MAC, and one card", store.QubesDB, alone, served(map[string]string{"/qubes-mac": ""}), plain},
		{"no MAC, and one card of Xen's beside another", store.QubesDB, []card{{"eth0", eth0.mac, true}, eth1},
			served(map[string]string{"/qubes-mac": ""}), plain},
		{"the card's own keys count first", store.QubesDB, []card{eth0, eth1},
			merged(served(map[string]string{"/qubes-mac": mac2}), ownKeys("ip", "10.137.0.11", "netmask", "255.255.255.255", "gateway", "10.137.0.6")),
			with(func(s *Spec) { s.Keys = "qubesdb: /net-config/" + mac1 + "/ip" })},
		{"an ordinary network, by its netmask", store.QubesDB, alone,
			ownKeys("ip", "192.0.2.9", "netmask", "255.255.255.0", "gateway", "192.0.2.1"),
			with(func(s *Spec) {
				s.Keys, s.Network = "qubesdb: /net-config/"+mac1+"/ip", true
				s.Addresses, s.Gateway, s.Resolvers = prefixes("192.0.2.9/24"), netip.MustParseAddr("192.0.2.1"), addrs("192.0.2.1")
			})},
		{"an ordinary network, because it says so; lengths of both families", store.QubesDB, alone,
			ownKeys("ip", "192.0.2.9", "netmask", "24", "gateway", "192.0.2.1", "ip6", "2001:db8::9", "netmask6", "64", "gateway6", "fe80::1", "custom", "true"),
			with(func(s *Spec) {
				s.Keys, s.Network = "qubesdb: /net-config/"+mac1+"/ip", true
				s.Addresses, s.Resolvers = prefixes("192.0.2.9/24", "2001:db8::9/64"), addrs("192.0.2.1")
				s.Gateway, s.Gateway6 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1")
			})},
		{"not an ordinary network, because it says so", store.QubesDB, alone,
			ownKeys("ip", "10.137.0.11", "netmask", "255.255.0.0", "gateway", "10.137.0.6", "custom", "0"),
			with(func(s *Spec) {
				s.Keys, s.Resolvers = "qubesdb: /net-config/"+mac1+"/ip", addrs("10.137.0.6")
			})},
		{"as Qubes 2 had it", store.XenStore, alone,
			map[string]string{"device/vif/0/mac": mac1, "qubes_ip": "10.137.0.11", "qubes_netmask": "255.255.0.0", "qubes_gateway": "10.137.0.6", "qubes_secondary_dns": "10.139.1.2"},
			with(func(s *Spec) {
				s.Keys, s.Resolvers = "xenstore: qubes_ip", addrs("10.137.0.6", "10.139.1.2")
			})},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := withPatience(t)
			got, err := readSpec(ctx, newToolstack(t, tc.kind).holds(ctx, tc.keys), tc.cards, "eth0")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, asTheyAre...); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestServiceFlagsAreFilesToo(t *testing.T) {
	ctx := withPatience(t)
	s := newToolstack(t, store.XenStore)
	if err := errors.Join(os.Mkdir(s.options.ServiceDir, 0o755), os.WriteFile(filepath.Join(s.options.ServiceDir, "disable-default-route"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	from := s.holds(ctx, map[string]string{"qubes_ip": "10.137.0.11", "qubes_gateway": "10.137.0.6"})
	got, err := readSpec(ctx, from, []card{{name: "eth0", mac: hardware(t, mac1)}}, "eth0")
	if err != nil || got.DefaultRoute || !got.DNS {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestWhatMakesNoSenseIsNamed(t *testing.T) {
	eth0, eth1 := card{name: "eth0", mac: hardware(t, mac1)}, card{name: "eth1", mac: hardware(t, mac2)}
	alone, two := []card{eth0}, []card{eth0, eth1}
	for _, tc := range []struct {
		name  string
		kind  string
		cards []card
		keys  map[string]string
		want  string
	}{
		{"no store", store.None, alone, nil, "eth0: the store configures no uplink: this machine has neither QubesDB nor XenStore"},
		{"a domain that no netvm serves", store.QubesDB, alone, nil,
			"eth0: the store configures no uplink: qubesdb: /qubes-ip is missing: no netvm serves this domain"},
		{"the same in XenStore", store.XenStore, alone, nil, "xenstore: qubes_ip is missing: no netvm serves this domain"},
		{"no gateway", store.QubesDB, alone, served(map[string]string{"/qubes-gateway": ""}), "eth0: qubesdb: /qubes-gateway is missing: "},
		{"no IPv6 gateway", store.QubesDB, alone, served(map[string]string{"/qubes-ip6": "fd09::b"}), "qubesdb: /qubes-gateway6 is missing: "},
		{"no gateway of the card", store.QubesDB, alone, merged(served(nil), ownKeys("ip", "10.137.0.11")),
			"qubesdb: /net-config/" + mac1 + "/gateway is missing: "},
		{"no gateway in XenStore", store.XenStore, alone, map[string]string{"qubes_ip": "10.137.0.11"}, "xenstore: qubes_gateway is missing: "},
		{"an address that is none", store.QubesDB, alone, served(map[string]string{"/qubes-ip": "10.137.0.300"}),
			`qubesdb: /qubes-ip: "10.137.0.300" is no address`},
		{"a network for an address", store.QubesDB, alone, served(map[string]string{"/qubes-ip": "10.137.0.0/16"}), `/qubes-ip: "10.137.0.0/16" is a network`},
		{"a multicast gateway", store.QubesDB, alone, served(map[string]string{"/qubes-gateway": "224.0.0.1"}),
			`/qubes-gateway: "224.0.0.1" cannot be the uplink's gateway: a multicast address`},
		{"IPv4 for IPv6", store.QubesDB, alone, served(map[string]string{"/qubes-ip6": "10.137.0.11"}), `/qubes-ip6: "10.137.0.11" cannot be an IPv6 address of the uplink`},
		{"IPv6 for IPv4", store.QubesDB, alone, served(map[string]string{"/qubes-ip": "fd09::b"}), `/qubes-ip: "fd09::b" cannot be an address of the uplink: an IPv6 address`},
		{"a loopback nameserver", store.QubesDB, alone, served(map[string]string{"/qubes-primary-dns": "127.0.0.1"}),
			`/qubes-primary-dns: "127.0.0.1" cannot be a nameserver: a loopback address`},
		{"words for a nameserver", store.QubesDB, alone, served(map[string]string{"/qubes-secondary-dns": "none\x1b[2J"}), `/qubes-secondary-dns: "none\x1b[2J" is no address`},
		{"the gateway is the domain itself", store.QubesDB, alone, served(map[string]string{"/qubes-gateway": "10.137.0.11"}),
			"/qubes-gateway: 10.137.0.11 is the domain's own address"},
		{"a netmask with holes", store.QubesDB, alone, ownKeys("ip", "192.0.2.9", "netmask", "255.0.255.0", "gateway", "192.0.2.1"),
			`/netmask: "255.0.255.0" is no netmask`},
		{"a netmask that is too long", store.QubesDB, alone, ownKeys("ip", "192.0.2.9", "netmask", "33", "gateway", "192.0.2.1"), `/netmask: "33" is no netmask`},
		{"a MAC that is none", store.QubesDB, alone, served(map[string]string{"/qubes-mac": "eth0"}), `qubesdb: /qubes-mac: "eth0" is no MAC`},
		{"a MAC of many", store.QubesDB, alone, served(map[string]string{"/qubes-mac": "01:00:5e:00:00:01"}), `"01:00:5e:00:00:01" cannot be a card's MAC`},
		{"a MAC that no interface has", store.QubesDB, two, served(map[string]string{"/qubes-mac": "00:16:3e:00:00:99"}),
			"qubesdb: /qubes-mac is 00:16:3e:00:00:99, which no interface has; eth0 has " + mac1},
		{"the MAC of another interface", store.QubesDB, two, served(map[string]string{"/qubes-mac": mac2}),
			"qubesdb: /qubes-mac is " + mac2 + ", that of eth1; eth0 has " + mac1},
		{"no MAC, and two cards", store.QubesDB, two, served(map[string]string{"/qubes-mac": ""}),
			"eth0: qubesdb: /qubes-mac is missing, and /qubes-ip may mean each of eth0, eth1"},
		{"no MAC, and another card is Xen's", store.XenStore, []card{eth0, {"eth1", eth1.mac, true}},
			map[string]string{"qubes_ip": "10.137.0.11", "qubes_gateway": "10.137.0.6"}, "xenstore: device/vif/0/mac is missing, and qubes_ip may mean each of eth1"},
		{"two cards with one MAC", store.QubesDB, []card{eth0, {"eth1", eth0.mac, false}}, served(nil), "eth0 and eth1 have the same MAC, " + mac1},
		{"no such card", store.QubesDB, []card{eth1}, served(nil), "eth0: there is no such network card; there are: eth1"},
		{"no card at all", store.QubesDB, nil, served(nil), "eth0: there is no such network card; there are: none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := withPatience(t)
			got, err := readSpec(ctx, newToolstack(t, tc.kind).holds(ctx, tc.keys), tc.cards, "eth0")
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			if diff := cmp.Diff(Spec{}, got, asTheyAre...); diff != "" {
				t.Errorf("something is returned nevertheless:\n%s", diff)
			}
		})
	}
}

func TestBridgesAndVifsAreNoCards(t *testing.T) {
	plugIn(t, "eth0", mac1)
	shell(t, "ip link add br0 type bridge && ip link set eth0 master br0")
	t.Cleanup(func() { unplug(t, "br0") })
	names, err := Interfaces()
	if err != nil || len(names) != 1 || names[0] != "eth0" {
		t.Errorf("the cards are %q, %v", names, err)
	}
}
