package packaging_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	wireGuard = "examples/wg0.conf"
	openVPN   = "examples/openvpn-dns"
)

// vpn is a shell in which an example runs, with programs in the place of systemd's that write down how they are called.
type vpn struct {
	t     *testing.T
	dir   string
	calls string
}

func newVPN(t *testing.T) *vpn {
	v := &vpn{t: t, dir: t.TempDir()}
	v.calls = filepath.Join(v.dir, "calls")
	for _, program := range []string{"systemd-run", "systemctl"} {
		text := "#!/bin/sh\necho " + program + ` "$@" >>` + v.calls + "\n"
		if err := os.WriteFile(filepath.Join(v.dir, program), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// run runs a program of the example and returns the calls that it made.
func (v *vpn) run(environment []string, program string, args ...string) string {
	v.t.Helper()
	if err := os.RemoveAll(v.calls); err != nil {
		v.t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = v.dir
	cmd.Env = append([]string{"PATH=" + v.dir + ":" + os.Getenv("PATH")}, environment...)
	path, err := filepath.Abs(program)
	if err == nil && strings.Contains(program, "/") {
		cmd.Path = path
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		v.t.Fatalf("%s %q: %v: %s", program, args, err, out)
	}
	calls, err := os.ReadFile(v.calls)
	if err != nil && !os.IsNotExist(err) {
		v.t.Fatal(err)
	}
	return string(calls)
}

// hooks are what wg-quick runs of wg0.conf for a key such as PostUp: %i is the interface.
func hooks(t *testing.T, key string) []string {
	t.Helper()
	text, err := os.ReadFile(wireGuard)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^`+key+` = ([^#\n]*)`).FindAllStringSubmatch(string(text), -1) {
		out = append(out, strings.ReplaceAll(m[1], "%i", "wg0"))
	}
	if len(out) == 0 {
		t.Fatalf("%s has no %s", wireGuard, key)
	}
	return out
}

func TestWireGuardBindsTheOverrideToItsDevice(t *testing.T) {
	v := newVPN(t)
	const up = "systemd-run --quiet --collect --unit=netvm-dns-wg0 --property=Type=notify " +
		"--property=BindsTo=sys-subsystem-net-devices-wg0.device --property=After=sys-subsystem-net-devices-wg0.device " +
		"netvmctl dns set 10.64.0.1\n"
	for _, hook := range hooks(t, "PostUp") {
		if got := v.run(nil, "bash", "-c", hook); got != up {
			t.Errorf("PostUp called\n%swant\n%s", got, up)
		}
	}
	for _, hook := range hooks(t, "PreDown") {
		if got := v.run(nil, "bash", "-c", hook); got != "systemctl stop netvm-dns-wg0\n" {
			t.Errorf("PreDown called\n%s", got)
		}
	}
}

func TestOpenVPNTakesTheResolversThatWerePushed(t *testing.T) {
	for _, tc := range []struct {
		name   string
		pushed []string
		want   string // what follows "dns set"; "" = nothing is called
	}{
		{"dhcp-options of both families, in their order",
			[]string{"foreign_option_1=dhcp-option DNS 10.8.0.1", "foreign_option_2=dhcp-option DOMAIN example.org",
				"foreign_option_3=dhcp-option DNS6 fd00:8::1", "foreign_option_4=dhcp-option DNS 10.8.0.2"},
			"10.8.0.1 fd00:8::1 10.8.0.2"},
		{"the same one twice is one", []string{"foreign_option_1=dhcp-option DNS 10.8.0.1", "foreign_option_2=dhcp-option DNS 10.8.0.1"}, "10.8.0.1"},
		{"--dns counts before --dhcp-option",
			[]string{"dns_server_1_address_1=10.8.0.1", "dns_server_1_address_2=fd00:8::1", "dns_server_2_address_1=10.8.0.2",
				"foreign_option_1=dhcp-option DNS 10.9.0.1"},
			"10.8.0.1 fd00:8::1 10.8.0.2"},
		{"servers that AppVMs cannot ask are left out",
			[]string{"dns_server_1_address_1=10.8.0.1", "dns_server_1_transport=DoT",
				"dns_server_2_address_1=10.8.0.2", "dns_server_2_port_1=5353", "dns_server_2_address_2=10.8.0.3", "dns_server_2_port_2=53",
				"dns_server_3_address_1=10.8.0.4", "dns_server_3_transport=plain",
				"dns_server_4_address_1=10.8.0.5", "dns_server_4_resolve_domain_1=corp.example.org"},
			"10.8.0.3 10.8.0.4"},
		{"what is no address is left out, and never run",
			[]string{"foreign_option_1=dhcp-option DNS --persistent", "foreign_option_2=dhcp-option DNS 10.8.0.1;touch${IFS}x",
				"foreign_option_3=dhcp-option DNS $(touch x)", "foreign_option_4=dhcp-option DNS *", "foreign_option_5=dhcp-option DNS 10.8.0.9"},
			"10.8.0.9"},
		{"no resolver, no override", []string{"foreign_option_1=dhcp-option DOMAIN example.org"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := newVPN(t)
			got := v.run(append(tc.pushed, "script_type=up", "dev=tun0"), openVPN, "tun0", "1500", "0", "10.8.0.6", "10.8.0.5", "init")
			want := ""
			if tc.want != "" {
				want = "systemctl stop netvm-dns-tun0.service\n" +
					"systemd-run --quiet --collect --unit=netvm-dns-tun0.service --property=Type=notify " +
					"--property=BindsTo=sys-subsystem-net-devices-tun0.device --property=After=sys-subsystem-net-devices-tun0.device " +
					"netvmctl dns set " + tc.want + "\n"
			}
			if got != want {
				t.Errorf("called\n%swant\n%s", got, want)
			}
			if _, err := os.Stat(filepath.Join(v.dir, "x")); err == nil {
				t.Error("what the server pushed was run")
			}
		})
	}
}

func TestOpenVPNTakesTheOverrideBack(t *testing.T) {
	v := newVPN(t)
	if got := v.run([]string{"script_type=down", "dev=tun-work"}, openVPN); got != `systemctl stop netvm-dns-tun\x2dwork.service`+"\n" {
		t.Errorf("called %s", got)
	}
}

func TestREADMEShowsWhatIsThere(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	readme := read("../README.md")
	for what, shown := range map[string]string{
		"netvmctl's status":             read("../internal/report/testdata/status-wifi.txt"),
		"wg0.conf's PostUp":             regexp.MustCompile(`(?m)^PostUp = .*\n`).FindString(read(wireGuard)),
		"wg0.conf's PreDown":            regexp.MustCompile(`(?m)^PreDown = .*\n`).FindString(read(wireGuard)),
		"the polkit rule of the manual": regexp.MustCompile(`(?s)polkit\.addRule.*?}\);\n`).FindString(read("man/org.qubes_os.NetVM1.5.md")),
	} {
		if shown == "" || !strings.Contains(readme, shown) {
			t.Errorf("the README does not show %s:\n%s", what, shown)
		}
	}
}

func TestShellcheckFindsNothing(t *testing.T) {
	out, err := exec.Command("shellcheck", openVPN, "deps.sh", "qubes/30-netvmd.sh", "qubes/30-netvmd-vm.sh").CombinedOutput()
	if err != nil {
		t.Errorf("shellcheck (package shellcheck): %v\n%s", err, out)
	}
}
