package packaging_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"netvmd/internal/lab/container"
)

// exposure is what systemd may make of a service's sandbox at most, in tenths: 0 is none, 100 is a service without a sandbox
// (systemd-analyze(1), security).
const exposure = "20"

func TestExposure(t *testing.T) {
	for _, name := range []string{unit, firewall} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold="+exposure, "systemd/"+name)
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "SYSTEMD_COLORS=0")
			out, err := cmd.CombinedOutput() // an error when it is exposed more than that
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			t.Log(regexp.MustCompile(`Overall exposure level.*`).FindString(string(out)))
		})
	}
}

// xenbus stands where XenStore's device does. It is a real device, which a closed policy does not let anybody open: that of
// tunnels.
const (
	xenbus    = "/dev/xen/xenbus"
	tunDevice = "/dev/net/tun"
)

// withXenbus gives the container the device.
func withXenbus(m *machine) {
	m.binds = append(m.binds, container.Bind{From: tunDevice, To: xenbus}, container.Bind{From: tunDevice, To: tunDevice})
}

// attempts are what a service can do in its sandbox and what not.
var attempts = []struct {
	name, command string
	works         bool
}{
	{"XenStore's device can be opened", "exec 3<>" + xenbus, true},
	{"the same device under its own name cannot, as there is none", "exec 3<>" + tunDevice, false},
	{"the settings of the network can be written", "echo 1 >/proc/sys/net/ipv4/ip_forward", true},
	{"so can those of a device that came later", "echo 0 >/proc/sys/net/ipv4/conf/late/accept_redirects", true},
	{"others cannot", "echo 1 >/proc/sys/kernel/sysrq", false},
	{"the records can be written", "touch /run/netvmd/attempt", true},
	{"so can the lock of iptables", "touch /run/xtables.lock", true},
	{"no unit can be written", "touch /run/systemd/system/attempt.service", false},
	{"no rule for udev either", "mkdir /run/udev/attempt", false},
	{"nor a configuration", "touch /etc/netvmd/netvmd.toml", false},
	{"an admin's drop-in can open something", "nft add rule ip netvmd custom-input tcp dport 22 accept", true},
	{"nothing can be mounted", "mount -t tmpfs none /run/netvmd", false},
}

// attempt has a unit make all attempts before it begins, as ExecStartPre= has the unit's sandbox, and returns which failed.
func (m *machine) attempt(name string) (failed string) {
	m.t.Helper()
	var commands strings.Builder
	for i, a := range attempts {
		fmt.Fprintf(&commands, "(%s) || echo ' %d ' >>/run/netvmd/failed\n", a.command, i)
	}
	m.script("shared/attempts", commands.String())
	m.shell("mkdir -p /run/systemd/system/" + name + ".d && cd /run/systemd/system/" + name + ".d && " +
		`printf '[Service]\nExecStartPre=/var/shared/attempts\n' >attempts.conf && systemctl daemon-reload && systemctl restart ` + name)
	return m.shell("cat /run/netvmd/failed && rm /run/netvmd/failed")
}

func TestSandboxUnderSystemd(t *testing.T) {
	m := boot(t, withXenbus)
	m.shell("systemctl start systemd-udevd.service; ip link add late type veth peer name far-late")
	for _, name := range []string{unit, firewall} {
		failed := m.attempt(name)
		for i, a := range attempts {
			t.Run(name+": "+a.name, func(t *testing.T) {
				if works := !strings.Contains(failed, fmt.Sprintf(" %d ", i)); works != a.works {
					t.Errorf("%s: works: %v", a.command, works)
				}
			})
		}
	}
	t.Run("the netvm's settings hold from its start", func(t *testing.T) {
		for path, want := range map[string]string{
			"ipv4/conf/all/send_redirects": "0", "ipv4/conf/lo/send_redirects": "0", "ipv4/conf/default/accept_redirects": "0",
			"ipv6/conf/default/accept_redirects": "0", "ipv4/conf/all/arp_ignore": "1",
		} {
			got, err := m.run("cat", "/proc/sys/net/"+path)
			if err != nil || strings.TrimSpace(got) != want {
				t.Errorf("%s is %q (%v), want %s", path, got, err, want)
			}
		}
	})
}

// TestIptablesUnderSystemd has both services use iptables, of either kind, in their sandbox.
func TestIptablesUnderSystemd(t *testing.T) {
	for _, kind := range []string{"nft", "legacy"} {
		t.Run(kind, func(t *testing.T) {
			m := boot(t, func(m *machine) {
				for _, program := range []string{"iptables", "ip6tables"} {
					for _, what := range []string{"", "-save", "-restore"} {
						m.link(program+"-"+kind+what, "usr/sbin/"+program+what)
					}
				}
				m.configure("[firewall]\nbackend = \"iptables\"\n")
			})
			s := service{m.services(), nil}
			if !s.is(firewall, "active") || !s.is(unit, "active") {
				t.Fatalf("%s is %v, %s is %v", firewall, s.property(firewall, "ActiveState"), unit, s.property(unit, "ActiveState"))
			}
			m.shell("netvmctl firewall check")
			const target = "-d 10.139.1.1/32 -p udp -m udp --dport 53 -j DNAT --to-destination 192.0.2.1"
			if rules := m.shell("iptables-" + kind + "-save -t nat"); !strings.Contains(rules, target) {
				t.Errorf("AppVM DNS does not go to the resolver:\n%s", rules)
			}
			m.shell("iptables -t nat -F PR-QBS")
			m.awaitLog("restored")
			m.shell("netvmctl firewall check")
		})
	}
}
