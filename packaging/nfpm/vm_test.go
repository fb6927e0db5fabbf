package nfpm

import "testing"

// What the scripts of netvmd-vm call, in words, and what they say.
const (
	asksStore = "netvmctl uplink show"
	// Whatever is called while the drop-in is there that has the network stay.
	keeping  = "  with [Service] ExecStopPost= "
	nextBoot = "netvmd-vm sets up this machine's network at the next boot. systemctl start netvm-uplink@eth0 does it now, for eth0.\n"
)

var announced = []string{inChroot, reread, udevd}

// keepingNetwork is a command to systemd during which stopping a unit does not take the network down.
func keepingNetwork(command string) []string {
	return []string{reread, keeping, "systemctl " + command + " netvm-uplink@*.service", keeping, reread}
}

func TestScriptsOfServedDomains(t *testing.T) {
	scripts(t, "netvmd-vm", []life{
		{
			name: "a new one starts nothing, and says what will, in a domain that a netvm serves", has: have(booted, []string{"served"}),
			runs:  []string{"deb/postinst configure ''", "rpm/post 1", "archlinux/post_install 1.0-1"},
			calls: join(announced, asksStore), says: nextBoot,
		},
		{
			name: "a new one says nothing in a netvm", has: booted,
			runs:  []string{"deb/postinst configure ''", "rpm/post 1", "archlinux/post_install 1.0-1"},
			calls: join(announced, asksStore),
		},
		{
			name: "on Qubes it says nothing either", has: have(booted, qubes, []string{"served"}),
			runs:  []string{"deb/postinst configure ''", "rpm/post 1", "archlinux/post_install 1.0-1"},
			calls: join(announced),
		},
		{
			name: "in a folder where no system runs it does nothing", has: qubes,
			runs: []string{"deb/postinst configure ''", "rpm/post 1", "archlinux/post_install 1.0-1", "deb/postinst configure 0.9",
				"rpm/post 2", "archlinux/post_upgrade 1.0-1 0.9-1", "deb/prerm remove", "rpm/preun 0", "archlinux/pre_remove 1.0-1"},
		},
		{
			name: "udev reads its files again where it runs", has: have(booted, qubes, udev),
			runs:  []string{"deb/postinst configure ''", "rpm/post 1", "archlinux/post_install 1.0-1"},
			calls: join(announced, "udevadm control --reload"),
		},
		{
			name: "an upgrade replaces the program, and the network stays", has: have(booted, uplink),
			runs:  []string{"deb/postinst configure 0.9", "rpm/post 2", "archlinux/post_upgrade 1.0-1 0.9-1"},
			calls: join(announced, keepingNetwork("try-restart")), stays: uplink, gone: []string{"run/systemd/system/netvm-uplink@.service.d"},
		},
		{
			name: "an upgrade stops nothing before", has: have(booted, uplink),
			runs: []string{"deb/prerm upgrade 1.0", "deb/postrm upgrade 1.0", "deb/preinst upgrade 0.9", "rpm/preun 1"}, stays: uplink,
		},
		{
			name: "a removal leaves the network, and what a reinstallation knows it by", has: have(booted, uplink),
			runs:  []string{"deb/prerm remove", "rpm/preun 0", "archlinux/pre_remove 1.0-1"},
			calls: join(inChroot, keepingNetwork("stop")), stays: uplink,
		},
		{
			name: "afterwards nobody knows its files any more", has: have(booted, uplink),
			runs: []string{"deb/postrm remove", "rpm/postun 0", "archlinux/post_remove 1.0-1"}, calls: announced, stays: uplink,
		},
	})
}
