package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParse(t *testing.T) {
	got, err := Parse("x.toml", `
runtime_dir = "/tmp/r"
[dns]
virtual = ["10.139.1.1", "fd00::1"]
servers = ["192.0.2.53"]
source = "resolved"
[firewall]
on_drift = "warn"
[hooks]
try_reload_units = []
`)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.RuntimeDir = "/tmp/r"
	want.DNS.Virtual = []netip.Addr{netip.MustParseAddr("10.139.1.1"), netip.MustParseAddr("fd00::1")}
	want.DNS.Servers = []netip.Addr{netip.MustParseAddr("192.0.2.53")}
	want.DNS.Source = "resolved"
	want.Firewall.OnDrift = Warn
	want.Hooks.TryReloadUnits = nil
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEmptyListOfVirtualAddressesAsksForTheDefault(t *testing.T) {
	got, err := Parse("x.toml", "[dns]\nvirtual = []\n")
	if err != nil || len(got.DNS.Virtual) != 2 {
		t.Errorf("got %v, %v", got.DNS.Virtual, err)
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
		{"a unit without a type", "[hooks]\ntry_restart_units = [\"proxy\"]\n", `x.toml:2: hooks.try_restart_units: "proxy" is not a unit's name`},
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
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("x.toml", text)
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("the error has more than one line: %q", err)
		}
		if err == nil && len(c.DNS.Virtual) == 0 {
			t.Error("no virtual address")
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
	for _, key := range []string{"runtime_dir", "virtual", "servers", "source", "resolv_conf", "backend", "on_drift", "try_restart_units", "try_reload_units"} {
		if !strings.Contains(shown, "\n"+key+" = ") {
			t.Errorf("%s is not shown", key)
		}
	}
}
