//go:build packages

package packages

import (
	"testing"
	"time"

	"netvmd/internal/lab"
)

// TestOnPlainXen tells the life of the package in a driver domain of a plain Xen host, from its installation to its
// purge, with an AppVM behind it.
func TestOnPlainXen(t *testing.T) {
	n := newNetVM(t)
	n.boot(lab.Options{})
	fresh := n.files()

	n.step("apt finds all that it needs in the archive", func(n *netvm) {
		// With nothing installed at all, apt has to resolve each dependency.
		n.has("what apt would install", n.apt("--simulate -o Dir::State::status=/dev/null install "+debs(older)+" "+deb("netvmd-dom0", older)),
			"Inst netvmd ", "Inst netvmd-dom0 ")
	})
	n.step("installing it starts nothing and changes nothing in the kernel", func(n *netvm) {
		before := n.kernel()
		said := n.apt("install " + debs(older))
		n.same("the kernel", before, n.kernel())
		n.has("what it said", said, "systemctl enable --now netvmd")
		n.says("systemctl is-enabled netvmd.service netvmd-firewall.service", "disabled\ndisabled")
		n.says("systemctl is-active netvmd.service netvmd-firewall.service", "inactive\ninactive")
		n.says("dpkg --verify netvmd netvmd-vm; dpkg --audit", "")
	})
	n.step("a caller on the bus is refused at once while the admin has not enabled it", func(n *netvm) {
		start := time.Now()
		out, err := n.NetVM.Machine.Run(n.ctx, "busctl", "call", "org.qubes_os.NetVM1", "/org/qubes_os/NetVM1", "org.qubes_os.NetVM1", "ListRoutes")
		if err == nil || time.Since(start) > 5*time.Second {
			n.t.Errorf("after %s: %v: %s", time.Since(start), err, out)
		}
	})
	n.step("systemctl enable --now brings it up, with its firewall", func(n *netvm) {
		n.sh(`sed -i 's/^#gateway = ""/gateway = "` + gateway + `"/' ` + configured)
		n.sh("systemctl enable --now netvmd.service")
		n.says("systemctl is-enabled netvmd.service netvmd-firewall.service", "enabled\nenabled")
		n.says("systemctl is-active netvmd.service netvmd-firewall.service", "active\nactive")
		n.sh("netvmctl firewall check")
		n.sh("netvmctl doctor")
	})
	n.step("an AppVM's card is brought up, and its queries reach the uplink's resolvers", func(n *netvm) {
		n.must(n.Work.Attach(n.ctx))
		n.served(n.Home.Resolvers[0], n.Home.Resolvers[1])
	})
	n.step("NetworkManager leaves the card alone", func(n *netvm) {
		n.says("nmcli --get-values GENERAL.STATE device show "+n.Work.Vif, "10 (unmanaged)")
	})
	n.step("a restart loses no query", func(n *netvm) {
		l, before := n.load(), n.pid()
		n.sh("systemctl restart netvmd.service")
		n.served(n.Home.Resolvers[0], n.Home.Resolvers[1])
		l.unharmed(n.Home.Resolvers[0], n.Home.Resolvers[1])
		if n.pid() == before {
			n.t.Error("it was not restarted")
		}
	})
	n.step("neither does kill -9, after which it is there again by itself", func(n *netvm) {
		w := n.NetVM.Watch(n.ctx)
		defer w.Close()
		_, err := w.Await(n.ctx, lab.LeadsTo(n.Home.Resolvers[0], n.Home.Resolvers[1]))
		n.must(err)
		l, before := n.load(), n.pid()
		n.sh("systemctl kill --kill-whom=main --signal=SIGKILL netvmd.service")
		_, err = w.Await(n.ctx, lab.LeadsTo(n.Home.Resolvers[0], n.Home.Resolvers[1]))
		n.must(err)
		l.unharmed(n.Home.Resolvers[0], n.Home.Resolvers[1])
		if n.pid() == before {
			n.t.Error("it was not killed")
		}
	})
	n.step("a caller on the bus starts it when it was stopped", func(n *netvm) {
		n.sh("systemctl stop netvmd.service")
		n.answered(n.Home.Resolvers[0], n.Home.Resolvers[1])
		n.sh("busctl call org.qubes_os.NetVM1 /org/qubes_os/NetVM1 org.qubes_os.NetVM1 ListRoutes")
		n.served(n.Home.Resolvers[0], n.Home.Resolvers[1])
		if n.pid() == "0" {
			n.t.Error("what was started is not the service")
		}
	})
	n.step("the uplink changes, and the queries follow", func(n *netvm) {
		n.must(n.Office.Plug())
		n.must(n.Home.Unplug())
		n.served(n.Office.Resolvers[0], n.Office.Resolvers[1])
		n.must(n.Home.Plug())
		n.must(n.Office.Unplug())
		n.served(n.Home.Resolvers[0], n.Home.Resolvers[1])
	})
	n.upgrades()
	n.leaves(fresh)
}

// upgrades tells of newer versions, while the AppVM works.
func (n *netvm) upgrades() {
	n.step("an upgrade that fails leaves the version before at work", func(n *netvm) {
		n.sh("dpkg-deb --raw-extract " + deb("netvmd", newer) + " /tmp/broken && printf '#!/bin/sh\nexit 1\n' >/tmp/broken/DEBIAN/preinst && " +
			"dpkg-deb -Znone --build /tmp/broken /tmp/broken.deb")
		l, before := n.load(), n.pid()
		if out, err := n.NetVM.Machine.Run(n.ctx, "dpkg", "--install", "/tmp/broken.deb"); err == nil {
			n.t.Errorf("it succeeded: %s", out)
		}
		l.unharmed(n.Home.Resolvers[0], n.Home.Resolvers[1])
		n.runs("0.9.1")
		if n.pid() != before {
			n.t.Error("it was restarted")
		}
		n.says("dpkg --audit; systemctl is-enabled netvmd.service", "enabled")
	})
	n.step("an upgrade loses no query and no connection, and runs the new version", func(n *netvm) {
		l, before := n.load(), n.pid()
		n.apt("install " + debs(newer))
		n.served(n.Home.Resolvers[0], n.Home.Resolvers[1])
		l.unharmed(n.Home.Resolvers[0], n.Home.Resolvers[1])
		if n.pid() == before {
			n.t.Error("the old one still runs")
		}
		n.runs("0.9.2")
		n.says("dpkg --audit", "")
	})
	n.step("what the admin changed in the configuration stays, also where a new version has another default", func(n *netvm) {
		n.apt("-o Dpkg::Options::=--force-confold install " + debs(newest))
		n.has("netvmd.toml", n.sh("cat "+configured), `gateway = "`+gateway+`"`)
		n.has("the new netvmd.toml", n.sh("cat "+configured+".dpkg-dist"), "Another default")
		n.says("dpkg --verify netvmd", "??5?????? c "+configured)
		n.served(n.Home.Resolvers[0], n.Home.Resolvers[1])
	})
	n.step("it is there again after a reboot, by itself", func(n *netvm) {
		n.shutDown()
		n.boot(lab.Options{})
		n.says("systemctl is-active netvmd.service netvmd-firewall.service", "active\nactive")
		n.says("systemctl --failed --no-legend --plain list-units 'netvm*'", "")
		n.must(n.Work.Attach(n.ctx))
		n.served(n.Home.Resolvers[0], n.Home.Resolvers[1])
	})
}

// leaves tells of the package's end.
func (n *netvm) leaves(fresh string) {
	n.step("removing it cuts nobody off: queries and connections of the AppVM go on", func(n *netvm) {
		l := n.load()
		said := n.apt("remove netvmd-vm") // and so netvmd
		n.answered(n.Home.Resolvers[0], n.Home.Resolvers[1])
		l.unharmed(n.Home.Resolvers[0], n.Home.Resolvers[1])
		n.has("what it said", said, n.Work.Vif)
		n.says("systemctl is-active netvmd.service netvmd-firewall.service", "inactive\ninactive")
		n.says("command -v netvmd netvmctl", "")
	})
	n.step("installed again, it takes over what is there without a change", func(n *netvm) {
		l, before := n.load(), n.kernel()
		n.apt("install " + debs(newest))
		n.sh("systemctl enable --now netvmd.service")
		n.served(n.Home.Resolvers[0], n.Home.Resolvers[1])
		l.unharmed(n.Home.Resolvers[0], n.Home.Resolvers[1])
		n.same("the kernel", before, n.kernel())
	})
	n.step("purged when the AppVM has gone, it leaves nothing behind", func(n *netvm) {
		n.must(n.Work.Detach(n.ctx))
		n.apt("purge netvmd netvmd-vm")
		n.says("nft list tables", "")
		n.says("find /run -name '*netvm*' -not -path '/run/systemd/*'", "")
		n.says("systemctl list-unit-files --no-legend 'netvm*' '*NetVM1*'", "")
		n.says("dpkg --audit; dpkg --list 'netvm*' 2>/dev/null | grep netvm", "")
		n.same("the disk", fresh, n.files())
	})
}
