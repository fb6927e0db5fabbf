//go:build packages

package packages

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"netvmd/internal/lab"
	"netvmd/internal/lab/container"
)

const (
	// uplinkUnit sets up the network of a domain that a netvm serves.
	uplinkUnit = "netvm-uplink@eth0.service"
	// rule is what starts it, and an admin's in its place, for a card that is none of Xen's.
	rule      = "/usr/lib/udev/rules.d/90-netvm-uplink.rules"
	ownRule   = "/etc/udev/rules.d/90-netvm-uplink.rules"
	xenDriver = `SUBSYSTEMS=="xen", DRIVERS=="vif", `
)

// served is a Debian that is booted as an AppVM of a lab, and the story that is told of it.
type served struct{ story }

// newServed makes a lab whose netvm is up, and a Debian as it comes out of its own packages, not booted yet.
func newServed(t *testing.T) *served {
	t.Helper()
	s := &served{story{debian: newDebian(t)}}
	var err error
	bin := filepath.Join(packagesFolder, "bin")
	s.Lab, err = lab.New(s.ctx, lab.Options{Netvmd: filepath.Join(bin, "netvmd"), VifRoute: filepath.Join(bin, "vif-route-netvm")})
	s.must(err)
	t.Cleanup(func() {
		if s.machine != nil {
			if t.Failed() {
				t.Logf("the AppVM's journal:\n%s", s.machine.Journal(context.Background()))
			}
			s.must(s.machine.Close())
		}
		s.must(s.Close())
	})
	s.must(s.NetVM.StartNetvmd(s.ctx))
	s.must(s.NetVM.NMCLI(s.ctx, "connection", "up", "home"))
	s.must(s.Work.Detach(s.ctx)) // as the lab has set it up by itself
	return s
}

// boot boots the AppVM with its XenStore, and starts udev, which no container does by itself.
func (s *served) boot() {
	s.t.Helper()
	var err error
	s.machine, err = s.Work.Boot(s.ctx, s.system, container.Bind{From: packagesFolder, To: packagesAt, ReadOnly: true})
	s.must(err)
	s.sh("mount -o remount,rw /sys && systemctl start systemd-udevd.service && systemctl daemon-reexec")
}

// toolstack says in XenStore what the AppVM's network is.
func (s *served) toolstack() {
	s.t.Helper()
	s.must(s.Work.StartXenStore())
	for key, value := range map[string]string{
		"qubes_ip": s.Work.Address.String(), "qubes_netmask": "255.255.255.255", "qubes_gateway": lab.Virtual4[0].String(),
		"qubes_secondary_dns": lab.Virtual4[1].String(), "device/vif/0/mac": s.Work.Card.MAC,
	} {
		s.Work.XenStore.Set(key, value)
	}
}

// plug plugs the card in, as Xen does.
func (s *served) plug() {
	s.t.Helper()
	s.must(s.Work.Plug(s.ctx))
}

// unplug takes it away again.
func (s *served) unplug() {
	s.t.Helper()
	s.must(s.Work.Detach(s.ctx))
}

// step is a part of the story, in which it may be booted again.
func (s *served) step(name string, f func(s *served)) {
	s.t.Helper()
	s.debian.step(name, func(d debian) {
		of := served{story{s.Lab, d}}
		defer func() { s.machine = of.machine }()
		f(&of)
	})
}

// active wants the unit to run.
func (s *served) active() {
	s.t.Helper()
	s.sh("systemctl start " + uplinkUnit) // waits for the job that udev has begun
	s.says("systemctl is-active "+uplinkUnit, "active")
}

// online wants the network to be as the toolstack says: a name resolves through the netvm, by what the C library reads.
func (s *served) online() {
	s.t.Helper()
	s.says("ip -4 route show | sed 's/ proto [a-z]*//'", "default dev eth0 scope link")
	s.says("ip -4 -o address show dev eth0 | grep -o 'inet [^ ]*'", "inet "+s.Work.Address.String()+"/32")
	s.has("whoami.lab", s.sh("getent ahostsv4 whoami.lab"), s.Home.Resolvers[0].String())
}

func TestServedDomain(t *testing.T) {
	s := newServed(t)
	s.toolstack()
	s.must(os.WriteFile(filepath.Join(s.system.Dir, "etc/NetworkManager/conf.d/idle.conf"), []byte("[main]\nno-auto-default=*\n"), 0o644))
	s.boot()
	fresh := s.files()
	s.comes()
	s.stays()
	s.stops()
	s.bootsAgain()
	s.goes(fresh)
}

func (s *served) comes() {
	s.step("installing it changes nothing in the kernel, and says when it will", func(s *served) {
		s.plug()
		s.sh("udevadm settle && nm-online --wait-for-startup --quiet --timeout=60; ip link set eth0 down")
		before := s.kernel()
		said := s.apt("install " + deb("netvmd-vm", older))
		s.same("the kernel", before, s.kernel())
		s.has("what it said", said, "systemctl start "+strings.TrimSuffix(uplinkUnit, ".service"))
		s.says("systemctl is-active "+uplinkUnit, "inactive")
		s.says("dpkg --verify netvmd-vm; dpkg --audit", "")
	})
	s.step("a card that comes is set up by NetworkManager, which is told what the toolstack says", func(s *served) {
		s.anyDriver()
		s.unplug()
		s.plug()
		s.active()
		s.online()
		s.has("NetworkManager's connections", s.sh("nmcli --get-values NAME connection show --active"), "eth0")
	})
}

// anyDriver has udev take the lab's card, which is a veth, for one of Xen's.
func (s *served) anyDriver() {
	s.t.Helper()
	text, err := os.ReadFile(s.machine.Path(rule))
	s.must(err)
	if !strings.Contains(string(text), xenDriver) {
		s.t.Fatalf("the rule is not about Xen's cards alone: %s", text)
	}
	s.must(os.WriteFile(s.machine.Path(ownRule), []byte(strings.ReplaceAll(string(text), xenDriver, "")), 0o644))
	s.sh("udevadm control --reload")
}

// pid is that of the program that follows the toolstack's words.
func (s *served) pid() string { return s.sh("systemctl show --property=MainPID --value " + uplinkUnit) }

// await waits until a file, or what a program goes on printing, has a line with these words.
func (s *served) await(words, source string) {
	s.t.Helper()
	_, err := s.machine.Run(s.ctx, "bash", "-c", "grep --quiet --max-count=1 '"+words+"' <("+source+")")
	s.must(err)
}

// whatWas is resolv.conf before.
const whatWas = "# An admin's.\n"

func (s *served) stays() {
	s.step("a program that was killed leaves the network to the next", func(s *served) {
		l, before := s.load(), s.pid()
		s.sh("systemctl kill --kill-whom=main --signal=SIGKILL " + uplinkUnit)
		s.await("Scheduled restart job", "journalctl --follow --lines=all --output=cat --unit="+uplinkUnit)
		s.active()
		l.unharmed(s.Home.Resolvers[0], s.Home.Resolvers[1])
		if s.pid() == before {
			s.t.Error("it was not killed")
		}
	})
	s.step("an upgrade replaces the program, and loses no query and no connection", func(s *served) {
		l, before := s.load(), s.pid()
		s.apt("install " + deb("netvmd-vm", newer))
		s.active()
		l.unharmed(s.Home.Resolvers[0], s.Home.Resolvers[1])
		if s.pid() == before {
			s.t.Error("the old one still runs")
		}
		s.has("the version", s.sh("netvmctl version"), newer)
		s.says("find /run/systemd/system -name 'netvm-uplink*'", "")
		s.says("dpkg --audit", "")
	})
	s.step("without NetworkManager it goes on with resolv.conf", func(s *served) {
		s.sh("printf \"" + whatWas + "\" >/etc/resolv.conf; systemctl disable --now NetworkManager.service")
		s.await("Generated by netvmctl uplink", "tail --follow=name --retry --lines=+1 /etc/resolv.conf")
		s.active()
		s.online()
	})
}

func (s *served) stops() {
	s.step("stopped, it takes back what it did", func(s *served) {
		s.sh("systemctl stop " + uplinkUnit)
		s.says("ip -4 -o address show dev eth0; ip route; ip neigh show nud permanent dev eth0", "")
		s.has("the link", s.sh("ip -o link show dev eth0"), "state DOWN", "group default")
		s.says("cat /etc/resolv.conf", strings.TrimSpace(whatWas))
		s.says("find /run/netvmd -name '*.json'", "")
	})
	s.step("started, it is there again, until somebody reverts it by hand", func(s *served) {
		s.active()
		s.online()
		s.sh("netvmctl uplink down eth0 && ip link set eth0 up")
		s.await("it is not followed any more", "journalctl --follow --lines=all --output=cat --unit="+uplinkUnit)
		s.sh("systemctl stop " + uplinkUnit) // waits until it has ended
		s.says("systemctl show --property=Result --value "+uplinkUnit, "success")
		s.says("ip -4 -o address show dev eth0", "")
		s.active()
		s.online()
	})
}

func (s *served) bootsAgain() {
	s.step("it cuts the link when the machine shuts down", func(s *served) {
		s.must(s.machine.PowerOff(s.ctx))
		link, err := s.Work.Run(s.ctx, "ip", "-o", "link", "show", "dev", "eth0")
		s.must(err)
		s.has("the link", link, "state DOWN", "group default")
		text, err := os.ReadFile(filepath.Join(s.system.Dir, "etc/resolv.conf"))
		if err != nil || string(text) != whatWas {
			s.t.Errorf("resolv.conf is %q, %v", text, err)
		}
		s.must(s.machine.Close())
	})
	s.step("and is there again after the next boot, by udev", func(s *served) {
		s.boot()
		s.says("systemctl is-active "+uplinkUnit, "inactive")
		// As at every boot outside of a container.
		s.sh("mount -o remount,rw /sys/devices && udevadm trigger --settle --action=add --subsystem-match=net --sysname-match=eth0")
		s.await("Started", "journalctl --follow --lines=all --output=cat --unit="+uplinkUnit)
		s.says("systemctl is-active "+uplinkUnit, "active")
		s.online()
	})
}

func (s *served) goes(fresh string) {
	s.step("removing it leaves the network until the next boot", func(s *served) {
		l := s.load()
		s.apt("remove netvmd-vm")
		s.online()
		l.unharmed(s.Home.Resolvers[0], s.Home.Resolvers[1])
		s.says("systemctl list-unit-files --no-legend 'netvm*'; systemctl show --property=MainPID --value "+uplinkUnit+"; command -v netvmctl", "0")
	})
	s.step("installed again, it knows the network for its own", func(s *served) {
		l, before := s.load(), s.kernel()
		s.apt("install " + deb("netvmd-vm", newer))
		s.active()
		l.unharmed(s.Home.Resolvers[0], s.Home.Resolvers[1])
		s.same("the kernel", before, s.kernel())
		s.sh("systemctl stop " + uplinkUnit)
		s.says("ip -4 -o address show dev eth0; ip route", "")
	})
	s.step("purged, it leaves nothing behind", func(s *served) {
		s.apt("purge netvmd-vm")
		s.sh("rm " + ownRule + "; systemctl enable NetworkManager.service")
		s.same("the disk", fresh, s.files())
	})
}
