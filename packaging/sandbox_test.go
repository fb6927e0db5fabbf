package packaging_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"netvmd/internal/lab/container"
)

// exposure is what systemd may make of a service's sandbox at most, in tenths: 0 is none, 100 is a service without a sandbox
// (systemd-analyze(1), security).
const exposure = "20"

func TestExposure(t *testing.T) {
	for _, name := range []string{unit, firewall, "netvm-uplink@.service"} {
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

// attempt is something that a service can do in its sandbox, or cannot.
type attempt struct {
	name, command string
	works         bool
}

// attempts are of every service, those of netvmd alone, and those of the one that sets up a served domain's network.
var (
	attempts = []attempt{
		{"XenStore's device can be opened", "exec 3<>" + xenbus, true},
		{"the same device under its own name cannot, as there is none", "exec 3<>" + tunDevice, false},
		{"the settings of the network can be written", "echo 1 >/proc/sys/net/ipv4/ip_forward", true},
		{"so can those of a device that came later", "echo 0 >/proc/sys/net/ipv4/conf/late/accept_redirects", true},
		{"nothing of /sys can be written", "mkdir /sys/attempt", false},
		{"the records can be written", "touch /run/netvmd/attempt", true},
		{"no unit can be written", "touch /run/systemd/system/attempt.service", false},
		{"no rule for udev either", "mkdir /run/udev/attempt", false},
		{"nor a configuration", "touch /etc/netvmd/netvmd.toml", false},
		{"nothing can be mounted", "mount -t tmpfs none /run/netvmd", false},
	}
	netvmdOnly = []attempt{
		{"the lock of iptables can be written", "touch /run/xtables.lock", true},
		{"an admin's drop-in can open something", "nft add rule ip netvmd custom-input tcp dport 22 accept", true},
		{"resolv.conf stays as it is", "touch /etc/resolv.conf.new", false},
	}
	uplinkOnly = []attempt{
		{"resolv.conf can be replaced", "echo new >/etc/resolv.conf.new && mv /etc/resolv.conf.new /etc/resolv.conf", true},
		{"one that was another's is so again", "touch /etc/resolv.conf.new && chown 65534:65534 /etc/resolv.conf.new && rm /etc/resolv.conf.new", true},
		{"no unit can be written in /etc either", "touch /etc/systemd/system/attempt.service", false},
		{"no user can be added", "echo attempt:x:0:0::/:/bin/sh >>/etc/passwd", false},
		{"nor put into another file in its place", "mv /etc/resolv.conf /etc/passwd", false},
		{"nothing can be had run by cron", "touch /etc/cron.d/attempt", false},
		{"nothing of the system can be written", "touch /usr/attempt /var/attempt", false},
		{"the admin's hook has IP sockets, over which iptables and ifconfig speak with the kernel", "bash -c 'exec 3<>/dev/udp/127.0.0.1/53'", true},
	}
)

// attempt has a unit make attempts before it begins, as ExecStartPre= has the unit's sandbox, and returns which failed.
func (m *machine) attempt(name string, list []attempt) (failed string) {
	m.t.Helper()
	var commands strings.Builder
	for i, a := range list {
		fmt.Fprintf(&commands, "(%s) || echo ' %d ' >>/run/netvmd/failed\n", a.command, i)
	}
	m.script("shared/attempts", commands.String())
	m.shell("mkdir -p /run/systemd/system/" + name + ".d && cd /run/systemd/system/" + name + ".d && " +
		`printf '[Service]\nExecCondition=\nExecStartPre=/var/shared/attempts\n' >attempts.conf && systemctl daemon-reload && systemctl restart ` + name)
	return m.shell("cat /run/netvmd/failed && rm /run/netvmd/failed")
}

func TestSandboxUnderSystemd(t *testing.T) {
	// What sets up a network is not what is tested here, and there is none.
	const uplink = "netvm-uplink@late.service"
	m := boot(t, withXenbus, func(m *machine) {
		m.write(units+uplink+".d/test.conf", "[Service]\nType=oneshot\nExecStart=\nExecStart=/bin/true\nExecStopPost=\nRestart=no\n")
	})
	m.followsDevices() // for /run/udev, and a /sys that is not shut by the container itself
	m.shell("chmod 755 /sys && mkdir /sys/attempt && rmdir /sys/attempt && ip link add late type veth peer name far-late")
	m.shell("mkdir -p /etc/systemd/system /etc/cron.d && touch /etc/passwd")
	for name, list := range map[string][]attempt{
		unit: slices.Concat(attempts, netvmdOnly), firewall: slices.Concat(attempts, netvmdOnly), uplink: slices.Concat(attempts, uplinkOnly),
	} {
		failed := m.attempt(name, list)
		for i, a := range list {
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
