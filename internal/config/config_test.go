package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParse(t *testing.T) {
	got, err := Parse("x.toml", `
runtime_dir = "/tmp/r"
state_dir = "/tmp/s"
[dns]
virtual = ["10.139.1.1", "fd00::1"]
servers = ["192.0.2.53"]
source = "resolved"
[firewall]
on_drift = "warn"
base = "never"
flowtable = "never"
[vif]
gateway = "10.137.0.1"
gateway6 = "fe80::fcff:ffff:feff:ffff"
harden = "always"
[store]
kind = "xenstore"
qubesdb_socket = "/tmp/q"
xenstore_path = "/dev/xen/xenbus"
[hooks]
try_reload_units = []
network_hooks_dir = "/tmp/hooks"
ip_change_hook = "/tmp/changed"
`)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.RuntimeDir, want.StateDir = "/tmp/r", "/tmp/s"
	want.DNS.Virtual = []netip.Addr{netip.MustParseAddr("10.139.1.1"), netip.MustParseAddr("fd00::1")}
	want.DNS.Servers = []netip.Addr{netip.MustParseAddr("192.0.2.53")}
	want.DNS.Source = "resolved"
	want.Firewall.OnDrift = Warn
	want.Firewall.Base, want.Firewall.Flowtable = BaseNever, FlowtableNever
	want.Vif = Vif{netip.MustParseAddr("10.137.0.1"), netip.MustParseAddr("fe80::fcff:ffff:feff:ffff"), HardenAlways}
	want.Store = Store{StoreXenStore, "/tmp/q", "/dev/xen/xenbus"}
	want.Hooks.TryReloadUnits, want.Hooks.NetworkHooksDir, want.Hooks.IPChangeHook = nil, "/tmp/hooks", "/tmp/changed"
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestVirtualAddressesComeFromTheFileThenTheStoreThenQubes(t *testing.T) {
	file, store := []netip.Addr{netip.MustParseAddr("192.0.2.1")}, []netip.Addr{netip.MustParseAddr("192.0.2.2")}
	qubes := []netip.Addr{netip.MustParseAddr("10.139.1.1"), netip.MustParseAddr("10.139.1.2")}
	for _, tc := range []struct {
		name              string
		file, store, want []netip.Addr
	}{
		{"the file wins over the store", file, store, file},
		{"without the file the store counts", []netip.Addr{}, store, store},
		{"without either it is as in Qubes", nil, nil, qubes},
	} {
		if got := (DNS{Virtual: tc.file}).VirtualOr(tc.store); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestAnEmptyGatewayIsNone(t *testing.T) {
	got, err := Parse("x.toml", "[vif]\ngateway = \"\"\ngateway6 = \"\"\n")
	if err != nil || got.Vif.Gateway.IsValid() || got.Vif.Gateway6.IsValid() {
		t.Errorf("got %v, %v", got.Vif, err)
	}
}

func TestErrorsNameFileLineAndKey(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"an unknown key", "[dns]\nserver = []\n", `x.toml:2: unknown key dns.server: remove it or mend its spelling`},
		{"an unknown key at the top", "\n\ncolour = 1\n", `x.toml:3: unknown key colour: remove it or mend its spelling`},
		{"an unknown table", "[dns]\n[tray]\nx = 1\n", `x.toml:2: unknown key tray: remove it or mend its spelling`},
		{"an address that is none", "[dns]\nservers = [\n\"192.0.2.300\"]\n", `x.toml:2: dns.servers: ParseAddr("192.0.2.300"): IPv4 field has value >255`},
		{"a choice that is none", "[firewall]\nbackend = \"pf\"\n", `x.toml:2: firewall.backend: "pf" is not one of auto, nftables, iptables`},
		{"a wrong type", "[dns]\nsource = 5\n", `x.toml:2: dns.source: `},
		{"no TOML at all", "[dns\n", `x.toml:`},
		{"a virtual address twice", "[dns]\nvirtual = [\"10.139.1.1\", \"10.139.1.1\"]\n", `x.toml:2: dns.virtual: 10.139.1.1 stands there twice`},
		{"a loopback address as virtual", "dns.virtual = [\"127.0.0.1\"]\n", `x.toml:1: dns.virtual: 127.0.0.1 cannot be a virtual DNS address`},
		{"a relative path", "runtime_dir = \"run\"\n", `x.toml:1: runtime_dir: "run" is not an absolute path`},
		{"a relative path of a hook", "[hooks]\nip_change_hook = \"hook\"\n", `x.toml:2: hooks.ip_change_hook: "hook" is not an absolute path`},
		{"a unit without a type", "[hooks]\ntry_restart_units = [\"proxy\"]\n", `x.toml:2: hooks.try_restart_units: "proxy" is not a unit's name`},
		{"an IPv6 gateway for IPv4", "[vif]\ngateway = \"fd00::1\"\n", `x.toml:2: vif.gateway: fd00::1 cannot be the vifs' gateway`},
		{"a multicast gateway", "[vif]\ngateway = \"224.0.0.1\"\n", `x.toml:2: vif.gateway: 224.0.0.1 cannot be the vifs' gateway`},
		{"a network as gateway", "[vif]\ngateway = \"10.137.0.0/16\"\n", `x.toml:2: vif.gateway: ParseAddr("10.137.0.0/16")`},
		{"an IPv6 gateway with a zone", "[vif]\ngateway6 = \"fe80::1%eth0\"\n", `x.toml:2: vif.gateway6: fe80::1%eth0 cannot be the vifs' IPv6 gateway`},
		{"an IPv4 gateway for IPv6", "[vif]\ngateway6 = \"10.137.0.1\"\n", `x.toml:2: vif.gateway6: 10.137.0.1 cannot be the vifs' IPv6 gateway`},
		{"a store that does not exist", "[store]\nkind = \"etcd\"\n", `x.toml:2: store.kind: "etcd" is not one of auto, qubesdb, xenstore, none`},
		{"a relative path of XenStore", "[store]\nxenstore_path = \"socket\"\n", `x.toml:2: store.xenstore_path: "socket" is neither auto nor an absolute path`},
		{"an empty address among the resolvers", "[dns]\nservers = [\"\"]\n", `x.toml:2: dns.servers: "" is no address`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse("x.toml", tc.text)
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("want one line that begins with\n%s\ngot\n%v", tc.want, err)
			}
		})
	}
}

func TestOnlyTheDefaultFileMayBeAbsent(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.toml")
	if _, err := Load(missing); !os.IsNotExist(unwrapAll(err)) {
		t.Errorf("a named file that is absent: %v", err)
	}
	t.Setenv("NETVMD_CONFIG", missing)
	if _, err := Load(""); !os.IsNotExist(unwrapAll(err)) {
		t.Errorf("a file named by the environment that is absent: %v", err)
	}
	t.Setenv("NETVMD_CONFIG", "")
	if _, named := Path(""); named {
		t.Error("the default path counts as asked for")
	}
}

func unwrapAll(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		err = u.Unwrap()
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[dns]\nservers = [\"192.0.2.53\"]\n")
	f.Add("x = {a=1}\n[[dns]]\n")
	f.Add("[vif]\ngateway = \"10.137.0.1\"\ngateway6 = \"fe80::1\"\n[store]\nkind = \"none\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("x.toml", text)
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("the error has more than one line: %q", err)
		}
		if err != nil {
			return
		}
		if a := c.Vif.Gateway; a.IsValid() && !a.Is4() {
			t.Errorf("gateway %s", a)
		}
		if a := c.Vif.Gateway6; a.IsValid() && !a.Is6() {
			t.Errorf("IPv6 gateway %s", a)
		}
		for _, a := range slices.Concat(c.DNS.Virtual, c.DNS.Servers) {
			if !a.IsValid() {
				t.Error("an address that is none")
			}
		}
	})
}

// The file that is installed shows every key with its default: taking the comments away changes nothing.
func TestInstalledFileShowsTheDefaults(t *testing.T) {
	const path = "../../packaging/netvmd.toml"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile(`(?m)^#([a-z0-9_]+ = )`).ReplaceAllString(string(text), "$1")
	got, err := Parse(path, shown)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-default +shown):\n%s", diff)
	}
	for _, key := range keys(reflect.TypeFor[Config](), "") {
		if !strings.Contains(shown, "\n"+key[strings.LastIndex(key, ".")+1:]+" = ") {
			t.Errorf("%s is not shown", key)
		}
	}
}

func TestREADMEHasARowForEveryKey(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys(reflect.TypeFor[Config](), "") {
		if !strings.Contains(string(text), "\n| `"+key+"` |") {
			t.Errorf("%s has no row", key)
		}
	}
}

// keys are the names of a table's keys, with those of the tables in it as table.key.
func keys(table reflect.Type, prefix string) (names []string) {
	for i := range table.NumField() {
		field := table.Field(i)
		key := prefix + field.Tag.Get("toml")
		if field.Type.Kind() == reflect.Struct && field.Type != reflect.TypeFor[netip.Addr]() {
			names = append(names, keys(field.Type, key+".")...)
		} else {
			names = append(names, key)
		}
	}
	return names
}
