package store

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"netvmd/internal/lab"
)

// patience bounds what a test waits for. It is only reached by a failing test.
const patience = 20 * time.Second

func withPatience(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func closeAtEnd(t *testing.T, c io.Closer) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// machine is where nothing is yet: options that name sockets and a folder that are not there.
func machine(t *testing.T, kind string) Options {
	t.Helper()
	dir, err := os.MkdirTemp("", "store") // t.TempDir's path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return Options{Kind: kind, QubesDBSocket: filepath.Join(dir, "qubesdb"), XenStorePath: filepath.Join(dir, "xenstore"),
		ServiceDir: filepath.Join(dir, "service")}
}

func startQubesDB(t *testing.T, o Options) *lab.QubesDB {
	t.Helper()
	q, err := lab.StartQubesDB(o.QubesDBSocket)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func startXenStore(t *testing.T, o Options) *lab.XenStore {
	t.Helper()
	x, err := lab.StartXenStore(o.XenStorePath)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// filled opens a store of the kind that has these keys.
func filled(ctx context.Context, t *testing.T, kind string, values map[string]string) *Store {
	t.Helper()
	o := machine(t, kind)
	set := func(string, string) {}
	switch kind {
	case QubesDB:
		q := startQubesDB(t, o)
		closeAtEnd(t, q)
		set = q.Set
	case XenStore:
		x := startXenStore(t, o)
		closeAtEnd(t, x)
		set = x.Set
	}
	for key, value := range values {
		set(key, value)
	}
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, s)
	return s
}

func addrs(words string) (out []netip.Addr) {
	for _, w := range strings.Fields(words) {
		out = append(out, netip.MustParseAddr(w))
	}
	return out
}

func addr(word string) netip.Addr { return netip.MustParseAddr(word) }

func diff(want, got Settings) string {
	return cmp.Diff(want, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
}

type values = map[string]string

func TestSettings(t *testing.T) {
	for _, tc := range []struct {
		name, kind string
		values     values
		want       Settings
	}{
		{"a netvm of Qubes OS 4", QubesDB, values{
			"/qubes-netvm-network": "10.137.0.0", "/qubes-netvm-gateway": "10.137.0.5", "/qubes-netvm-gateway6": "fe80::fcff:ffff:feff:ffff",
			"/qubes-netvm-primary-dns": "10.139.1.1", "/qubes-netvm-secondary-dns": "10.139.1.2",
		}, Settings{Virtual: addrs("10.139.1.1 10.139.1.2"), Gateway: addr("10.137.0.5"), Gateway6: addr("fe80::fcff:ffff:feff:ffff")}},
		{"a netvm behind another netvm", QubesDB, values{
			"/qubes-netvm-gateway": "10.137.0.6", "/qubes-netvm-primary-dns": "10.139.1.1", "/qubes-netvm-secondary-dns": "10.139.1.2",
			"/qubes-ip": "10.137.0.7", "/qubes-primary-dns": "10.139.1.1",
		}, Settings{Virtual: addrs("10.139.1.1 10.139.1.2"), Gateway: addr("10.137.0.6"), PassThrough: true,
			Resolvers: addrs("10.139.1.1")}},
		{"what the netvm above gives it: nameservers in order, and where they are", QubesDB, values{
			"/qubes-ip": "10.137.0.7", "/qubes-gateway": "10.137.0.5", "/qubes-primary-dns": "10.139.1.1", "/qubes-secondary-dns": "10.139.1.2",
		}, Settings{PassThrough: true, Resolvers: addrs("10.139.1.1 10.139.1.2"), NextGateway: addr("10.137.0.5")}},
		{"without a first nameserver the gateway is one", QubesDB, values{
			"/qubes-ip": "10.137.0.7", "/qubes-gateway": "10.137.0.5", "/qubes-secondary-dns": "fd00::2",
		}, Settings{PassThrough: true, Resolvers: addrs("10.137.0.5 fd00::2"), NextGateway: addr("10.137.0.5")}},
		{"nameservers are nobody's where no netvm is above", QubesDB, values{"/qubes-gateway": "10.137.0.5", "/qubes-secondary-dns": "10.139.1.2"}, Settings{}},
		{"an address alone tells of a netvm above too", QubesDB, values{"/qubes-ip": "10.137.0.7"}, Settings{PassThrough: true}},
		{"and so does a DNS address alone", QubesDB, values{"/qubes-primary-dns": "10.139.1.1"}, Settings{PassThrough: true, Resolvers: addrs("10.139.1.1")}},
		{"a service flag is on when it is not empty", QubesDB, values{"/qubes-service/harden-network-interfaces": "1"}, Settings{Harden: true}},
		{"and off when it is", QubesDB, values{"/qubes-service/harden-network-interfaces": ""}, Settings{}},
		{"an empty value counts as missing", QubesDB, values{"/qubes-netvm-gateway6": "", "/qubes-netvm-gateway": "10.137.0.5", "/qubes-ip": ""}, Settings{Gateway: addr("10.137.0.5")}},
		{"one DNS address", QubesDB, values{"/qubes-netvm-secondary-dns": "10.139.1.2"}, Settings{Virtual: addrs("10.139.1.2")}},
		{"a DNS address that stands there twice counts once", QubesDB, values{"/qubes-netvm-primary-dns": "10.139.1.1", "/qubes-netvm-secondary-dns": "10.139.1.1"}, Settings{Virtual: addrs("10.139.1.1")}},
		{"nothing is set", QubesDB, nil, Settings{}},
		{"XenStore: the gateway is the first DNS address", XenStore, values{
			"qubes_netvm_gateway": "10.137.1.1", "qubes_netvm_secondary_dns": "10.137.1.254", "qubes_netvm_netmask": "255.255.255.0",
		}, Settings{Virtual: addrs("10.137.1.1 10.137.1.254"), Gateway: addr("10.137.1.1")}},
		{"XenStore: behind another netvm", XenStore, values{"qubes_ip": "10.137.1.9"}, Settings{PassThrough: true}},
		{"XenStore: the gateway there is the first nameserver", XenStore, values{
			"qubes_ip": "10.137.1.9", "qubes_gateway": "10.137.1.1", "qubes_secondary_dns": "10.137.1.254",
		}, Settings{PassThrough: true, Resolvers: addrs("10.137.1.1 10.137.1.254"), NextGateway: addr("10.137.1.1")}},
		{"XenStore: nothing is set", XenStore, nil, Settings{}},
		{"no store", None, nil, Settings{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := withPatience(t)
			got, err := filled(ctx, t, tc.kind, tc.values).Settings(ctx)
			if d := diff(tc.want, got); d != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, d)
			}
		})
	}
}

func TestAServiceFlagMayBeAFile(t *testing.T) {
	ctx := withPatience(t)
	o := machine(t, None)
	if err := os.MkdirAll(o.ServiceDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.ServiceDir, "harden-network-interfaces"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Settings(ctx); err != nil || !got.Harden {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestBadValuesAreNamedWithTheirKeys(t *testing.T) {
	const gateway, dns = "/qubes-netvm-gateway", "/qubes-netvm-primary-dns"
	for _, tc := range []struct{ name, kind, key, value, want string }{
		{"a network", QubesDB, gateway, "10.137.0.0/16", `qubesdb: /qubes-netvm-gateway: "10.137.0.0/16" is a network, and an address is wanted`},
		{"a name", QubesDB, gateway, "router", `qubesdb: /qubes-netvm-gateway: "router" is no address`},
		{"an address with more behind it", QubesDB, gateway, "10.137.0.5\n", `qubesdb: /qubes-netvm-gateway: "10.137.0.5\n" is no address`},
		{"bytes that are no text", QubesDB, gateway, "\xff\x01", `qubesdb: /qubes-netvm-gateway: "\xff\x01" is no address`},
		{"too long", QubesDB, gateway, strings.Repeat("1", 3000), `qubesdb: /qubes-netvm-gateway: "` + strings.Repeat("1", 64) + `"… is no address: 3000 bytes are too many`},
		{"the wrong family", QubesDB, gateway, "fd00::1", `qubesdb: /qubes-netvm-gateway: "fd00::1" cannot be the vifs' gateway: an IPv6 address`},
		{"IPv4 written as IPv6", QubesDB, gateway, "::ffff:10.137.0.5", `qubesdb: /qubes-netvm-gateway: "::ffff:10.137.0.5" cannot be the vifs' gateway: an IPv4 address written as IPv6`},
		{"the unspecified address", QubesDB, gateway, "0.0.0.0", `"0.0.0.0" cannot be the vifs' gateway: the unspecified address`},
		{"loopback", QubesDB, gateway, "127.0.0.1", `"127.0.0.1" cannot be the vifs' gateway: a loopback address`},
		{"multicast", QubesDB, gateway, "224.0.0.1", `"224.0.0.1" cannot be the vifs' gateway: a multicast address`},
		{"broadcast", QubesDB, gateway, "255.255.255.255", `"255.255.255.255" cannot be the vifs' gateway: the broadcast address`},
		{"link-local IPv4", QubesDB, gateway, "169.254.1.1", `"169.254.1.1" cannot be the vifs' gateway: a link-local address`},
		{"IPv4 for IPv6", QubesDB, "/qubes-netvm-gateway6", "10.137.0.5", `"10.137.0.5" cannot be the vifs' IPv6 gateway: an IPv4 address`},
		{"a zone", QubesDB, "/qubes-netvm-gateway6", "fe80::1%eth0", `"fe80::1%eth0" cannot be the vifs' IPv6 gateway: it has a zone`},
		{"IPv6 multicast", QubesDB, "/qubes-netvm-gateway6", "ff02::1", `"ff02::1" cannot be the vifs' IPv6 gateway: a multicast address`},
		{"a virtual DNS address that is loopback", QubesDB, dns, "127.0.0.53", `"127.0.0.53" cannot be a virtual DNS address: a loopback address`},
		{"an uplink's address that is none", QubesDB, "/qubes-ip", "yes", `qubesdb: /qubes-ip: "yes" is no address`},
		{"XenStore's gateway is named once", XenStore, "qubes_netvm_gateway", "x", `xenstore: qubes_netvm_gateway: "x" is no address`},
		{"XenStore's second DNS address", XenStore, "qubes_netvm_secondary_dns", "1.1.1", `xenstore: qubes_netvm_secondary_dns: "1.1.1" is no address`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := withPatience(t)
			got, err := filled(ctx, t, tc.kind, values{tc.key: tc.value}).Settings(ctx)
			var faults ValueErrors
			if !errors.As(err, &faults) || !strings.HasSuffix(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("want %s\ngot  %v", tc.want, err)
			}
			if d := diff(Settings{}, got); d != "" {
				t.Errorf("something is returned all the same:\n%s", d)
			}
		})
	}
}

func TestAllBadValuesAreNamedAndTheGoodOnesAreNotReturned(t *testing.T) {
	ctx := withPatience(t)
	s := filled(ctx, t, QubesDB, values{"/qubes-netvm-gateway": "x", "/qubes-ip": "y", "/qubes-netvm-primary-dns": "10.139.1.1"})
	got, err := s.Settings(ctx)
	const want = `qubesdb: /qubes-netvm-gateway: "x" is no address; qubesdb: /qubes-ip: "y" is no address`
	if err == nil || err.Error() != want || len(got.Virtual) > 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAKeyThatIsRefusedIsNamedAndTheOthersAreRead(t *testing.T) {
	ctx := withPatience(t)
	o := machine(t, XenStore)
	x := startXenStore(t, o)
	closeAtEnd(t, x)
	x.Refuse("qubes_netvm_gateway", "EACCES")
	x.Set("qubes_ip", "z")
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, s)
	_, err = s.Settings(ctx)
	const want = `xenstore: read "qubes_netvm_gateway": EACCES; xenstore: qubes_ip: "z" is no address`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestMapping(t *testing.T) {
	both := values{"/mapped-ip/10.137.0.16/visible-ip": "192.168.7.2", "/mapped-ip/10.137.0.16/visible-gateway": "192.168.7.1"}
	for _, tc := range []struct {
		name, kind string
		values     values
		ip         string
		want       Mapping
		found      bool
		fault      string
	}{
		{"a hidden address", QubesDB, both, "10.137.0.16", Mapping{addr("192.168.7.2"), addr("192.168.7.1")}, true, ""},
		{"without a gateway of its own", QubesDB, values{"/mapped-ip/10.137.0.16/visible-ip": "192.168.7.2"}, "10.137.0.16", Mapping{Visible: addr("192.168.7.2")}, true, ""},
		{"another AppVM", QubesDB, both, "10.137.0.17", Mapping{}, false, ""},
		{"an IPv6 address is never hidden", QubesDB, both, "fd09::16", Mapping{}, false, ""},
		{"XenStore hides none", XenStore, nil, "10.137.0.16", Mapping{}, false, ""},
		{"nor does no store", None, nil, "10.137.0.16", Mapping{}, false, ""},
		{"garbage", QubesDB, values{"/mapped-ip/10.137.0.16/visible-ip": "192.168.7.0/24"}, "10.137.0.16", Mapping{}, false,
			`qubesdb: /mapped-ip/10.137.0.16/visible-ip: "192.168.7.0/24" is a network, and an address is wanted`},
		{"garbage in the gateway", QubesDB, values{"/mapped-ip/10.137.0.16/visible-ip": "192.168.7.2", "/mapped-ip/10.137.0.16/visible-gateway": "::1"},
			"10.137.0.16", Mapping{}, false, `qubesdb: /mapped-ip/10.137.0.16/visible-gateway: "::1" cannot be an AppVM's visible address: an IPv6 address`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := withPatience(t)
			got, found, err := filled(ctx, t, tc.kind, tc.values).Mapping(ctx, addr(tc.ip))
			if got != tc.want || found != tc.found {
				t.Errorf("got %+v, %t", got, found)
			}
			if (err != nil || tc.fault != "") && (err == nil || err.Error() != tc.fault) {
				t.Errorf("got the error %v, want %s", err, tc.fault)
			}
		})
	}
}

func TestWhichStoreIsOpened(t *testing.T) {
	for _, tc := range []struct {
		name, kind        string
		qubesDB, xenStore bool
		want, fails       string
	}{
		{"auto prefers QubesDB", Auto, true, true, QubesDB, ""},
		{"auto takes XenStore without QubesDB", Auto, false, true, XenStore, ""},
		{"auto is content with none", Auto, false, false, None, ""},
		{"none although both are there", None, true, true, None, ""},
		{"XenStore although QubesDB is there", XenStore, true, true, XenStore, ""},
		{"QubesDB that is not there", QubesDB, false, true, "", `store.kind = "qubesdb": qubesdb: dial unix `},
		{"XenStore that is not there", XenStore, true, false, "", `store.kind = "xenstore": xenstore: stat `},
		{"a kind that does not exist", "etcd", true, true, "", `store.kind = "etcd": not one of auto, qubesdb, xenstore, none`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := machine(t, tc.kind)
			if tc.qubesDB {
				closeAtEnd(t, startQubesDB(t, o))
			}
			if tc.xenStore {
				closeAtEnd(t, startXenStore(t, o))
			}
			s, err := Open(withPatience(t), o)
			if tc.fails != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tc.fails) {
					t.Errorf("got %v, want %s", err, tc.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			closeAtEnd(t, s)
			if s.Kind() != tc.want {
				t.Errorf("got %s, want %s", s.Kind(), tc.want)
			}
		})
	}
}

func TestAnOpeningThatIsCancelledIsNotTakenForAMachineWithoutAStore(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if s, err := Open(ctx, machine(t, Auto)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v", s, err)
	}
}

// FuzzAddress checks what must hold of every address that is taken from a store, for each role.
func FuzzAddress(f *testing.F) {
	for _, v := range []string{"10.137.0.5", "fe80::1", "fe80::1%eth0", "::ffff:127.0.0.1", "224.0.0.1", "10.0.0.0/8", "", "\x00"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for _, role := range []role{theGateway, theGateway6, aVirtualDNSAddress, anUplinksAddress, aVisibleAddress} {
			a, err := parseAddress(value, role)
			if err != nil {
				if a.IsValid() || strings.Contains(err.Error(), "\n") || len(err.Error()) > 400 {
					t.Errorf("%s with the error %q", a, err)
				}
				continue
			}
			if a.Is6() != role.ipv6 || a.Zone() != "" || a.Is4In6() || a.IsMulticast() || a.IsLoopback() || a.IsUnspecified() {
				t.Errorf("%s is taken for %s", a, role.name)
			}
			if a.IsLinkLocalUnicast() && a.Is4() {
				t.Errorf("%s is taken for %s", a, role.name)
			}
		}
	})
}
