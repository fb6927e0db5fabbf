package nfpm

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What the scripts call, in words.
const (
	makeFolders = "systemd-tmpfiles --create netvmd.conf"
	enable      = "systemctl --quiet --no-reload preset netvmd-firewall.service netvmd.service netvmd-vifs.service"
	disable     = "systemctl --quiet disable netvmd-firewall.service netvmd.service netvmd-vifs.service"
	stop        = "systemctl stop netvmd-vifs.service netvmd.service netvmd-firewall.service"
	inChroot    = "systemd-detect-virt --quiet --chroot"
	reread      = "systemctl daemon-reload"
	unload      = "netvmctl firewall unload"
	asksTable   = "nft list table ip qubes"
	udevd       = "systemctl --quiet is-active systemd-udevd.service"
	nmRuns      = "systemctl --quiet is-active NetworkManager.service"
	dispatcher  = "systemctl try-restart NetworkManager-dispatcher.service"
)

// What they say.
const (
	howToStart  = "netvmd does not run yet: its firewall closes this machine too, ssh included. systemctl enable --now netvmd starts it.\n"
	startsLater = "netvmd starts with the next boot: its rules would cut off AppVMs whose network cards it has not brought up.\n"
	rulesStay   = "vif4.0 would be cut off\nnetvmd: its rules stay in the kernel until the next boot, so that running AppVMs keep their network\n"
)

var (
	noticed  = []string{inChroot, makeFolders, reread, udevd, nmRuns}
	started  = starts("deb-systemd-invoke start ")
	asked    = starts("")
	replaced = join(noticed, "systemctl try-reload-or-restart netvmd-firewall.service",
		"systemctl try-restart netvmd.service netvmd-vifs.service")
	removal = join(disable, inChroot, stop, unload)
)

// starts is how each unit in turn is looked at, and started by a command if there is one.
func starts(command string) (calls []string) {
	for _, unit := range []string{"netvmd-firewall.service", "netvmd.service", "netvmd-vifs.service"} {
		calls = append(calls, "systemctl --quiet is-enabled "+unit)
		if command != "" {
			calls = append(calls, command+unit)
		}
	}
	return calls
}

// join makes one list of strings and lists of them.
func join(parts ...any) []string {
	all := []string{}
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			all = append(all, p)
		case []string:
			all = append(all, p...)
		}
	}
	return all
}

// have makes one machine's files of several's.
func have(lists ...[]string) []string { return slices.Concat(lists...) }

// life is a moment in a package's life: what its scripts do then.
type life struct {
	name   string
	has    []string
	before string   // a script that ran before
	runs   []string // the same in each format
	calls  []string
	says   string
	gone   []string
	stays  []string
}

func TestScripts(t *testing.T) {
	scripts(t, "netvmd", []life{
		{
			name: "a new one in a Qubes VM is enabled, and started", has: have(booted, qubes, enabled),
			runs: []string{"deb/postinst configure ''", "rpm/post 1", "archlinux/post_install 1.0-1"},
			// The conditions of the units decide whether they run.
			calls: join(enable, noticed, started),
		},
		{
			name: "a new one in a Qubes template's chroot is enabled, and no more", has: qubes,
			runs:  []string{"deb/postinst configure ''", "rpm/post 1", "archlinux/post_install 1.0-1"},
			calls: join(enable),
		},
		{
			name: "a new one waits for the next boot where it would cut AppVMs off", has: have(booted, qubes, on, enabled, vif),
			runs:  []string{"deb/postinst configure ''", "rpm/post 1", "archlinux/post_install 1.0-1"},
			calls: join(enable, noticed, asked[0]), says: startsLater,
		},
		{
			name: "one whose service is off says nothing of that", has: have(booted, qubes, enabled, vif),
			runs:  []string{"deb/postinst configure ''", "rpm/post 1", "archlinux/post_install 1.0-1"},
			calls: join(enable, noticed, started),
		},
		{
			name: "one that is there again starts where it knows all vifs", has: have(booted, qubes, on, enabled, vif, state),
			runs:  []string{"deb/postinst configure ''", "rpm/post 1", "archlinux/post_install 1.0-1"},
			calls: join(enable, noticed, started), stays: state,
		},
		{
			name: "a new one elsewhere starts nothing, and says how to", has: booted,
			runs:  []string{"deb/postinst configure ''", "rpm/post 1", "archlinux/post_install 1.0-1"},
			calls: join(noticed, asked), says: howToStart,
		},
		{
			name: "udev and NetworkManager read their files again where they run", has: have(booted, qubes, udev, nm),
			runs:  []string{"deb/postinst configure ''", "rpm/post 1", "archlinux/post_install 1.0-1"},
			calls: join(enable, inChroot, makeFolders, reread, udevd, "udevadm control --reload", nmRuns, "nmcli general reload conf", asked),
		},
		{
			name: "an upgrade reloads and restarts what runs, and enables nothing anew", has: have(booted, qubes, enabled, state),
			runs:  []string{"deb/postinst configure 0.9", "rpm/post 2", "archlinux/post_upgrade 1.0-1 0.9-1"},
			calls: replaced, stays: state,
		},
		{
			name: "an upgrade stops nothing before, and takes nothing away", has: have(booted, qubes, enabled, state),
			runs: []string{
				"deb/prerm upgrade 1.0", "deb/prerm failed-upgrade 0.9", "deb/prerm deconfigure in-favour other 1.0", "deb/postrm upgrade 1.0",
				"deb/postrm failed-upgrade 0.9", "deb/postrm abort-upgrade 0.9", "deb/preinst upgrade 0.9", "rpm/preun 1",
			},
			stays: state,
		},
		{
			name: "rpm's old version sees to it that systemd forgets its files", has: have(booted, state),
			runs: []string{"rpm/postun 1"}, calls: join(inChroot, reread), stays: state,
		},
		{
			name: "an upgrade that does not come to pass changes nothing", has: have(booted, qubes, enabled),
			runs: []string{"deb/postinst abort-upgrade 1.0", "deb/postinst abort-deconfigure in-favour other 1.0"},
		},
		{
			name: "a removal that does not come to pass gives everything back", has: have(booted, qubes, enabled),
			runs: []string{"deb/postinst abort-remove"}, calls: join(enable, noticed, started),
		},
		{
			name: "one that finds the configuration of a removed one is new", has: qubes, before: "deb/preinst install 0.9",
			runs: []string{"deb/postinst configure 0.9"}, calls: join(enable), gone: []string{"run/netvmd-is-new"},
		},
		{
			name: "one that could not be unpacked leaves nothing behind", before: "deb/preinst install",
			runs: []string{"deb/postrm abort-install"}, gone: []string{"run/netvmd-is-new"},
		},
		{
			name: "a removal disables, stops and unloads", has: booted,
			runs: []string{"deb/prerm remove", "rpm/preun 0", "archlinux/pre_remove 1.0-1"}, calls: removal,
		},
		{
			name: "a removal in a chroot does not touch the kernel", has: have(booted, []string{"chroot"}),
			runs: []string{"deb/prerm remove", "rpm/preun 0", "archlinux/pre_remove 1.0-1"}, calls: join(disable, inChroot),
		},
		{
			name: "a removal says that the rules stay where AppVMs need them", has: have(booted, []string{"admitted"}),
			runs: []string{"deb/prerm remove", "rpm/preun 0", "archlinux/pre_remove 1.0-1"}, calls: removal, says: rulesStay,
		},
		{
			name: "a removal keeps the records while there are vifs", has: have(booted, state, vif),
			runs: []string{"deb/postrm remove", "deb/postrm disappear other 1.0"}, calls: join(inChroot, reread, dispatcher), stays: state,
		},
		{
			name: "a removal takes the records away when there are none", has: have(booted, state),
			runs: []string{"deb/postrm remove"}, calls: join(inChroot, reread, dispatcher), gone: []string{"run/netvmd"}, stays: state[1:],
		},
		{
			name: "what was written goes with the package, or is purged", has: state,
			runs: []string{"deb/postrm purge", "rpm/postun 0", "archlinux/post_remove 1.0-1"},
			gone: []string{"var/lib/netvmd", "etc/netvmd"},
		},
		{
			name: "what the admin put beside the configuration stays", has: have(state, []string{"etc/netvmd/notes"}),
			runs: []string{"deb/postrm purge", "rpm/postun 0", "archlinux/post_remove 1.0-1"}, gone: []string{"var/lib/netvmd"},
			stays: []string{"etc/netvmd/notes"},
		},
		{
			name: "rpm takes empty folders of other packages away, and no others",
			has:  []string{"etc/xen/scripts/", "etc/qubes/post-install.d/10-other.sh"},
			runs: []string{"rpm/postun 0"}, gone: []string{"etc/xen"}, stays: []string{"etc/qubes/post-install.d/10-other.sh"},
		},
		{
			name: "what netvmd-vm keeps of the machine's own network stays", has: have(booted, state, uplink),
			runs: []string{"deb/postrm remove"}, calls: join(inChroot, reread, dispatcher), gone: []string{"run/netvmd/vifs"}, stays: uplink,
		},
	})
}

// scripts runs a package's scripts through what may happen to it.
func scripts(t *testing.T, pack string, lives []life) {
	for _, tc := range lives {
		t.Run(tc.name, func(t *testing.T) {
			for _, run := range tc.runs {
				m := newMachine(t, pack, tc.has)
				if tc.before != "" {
					m.run(tc.before)
				}
				if said := m.run(run); said != tc.says {
					t.Errorf("%s says %q, want %q", run, said, tc.says)
				}
				if diff := cmp.Diff(join(tc.calls), m.calls()); diff != "" {
					t.Errorf("%s calls (-want +got):\n%s", run, diff)
				}
				for _, name := range tc.gone {
					if m.has(name) {
						t.Errorf("%s leaves %s behind", run, name)
					}
				}
				for _, name := range tc.stays {
					if !m.has(name) {
						t.Errorf("%s takes %s away", run, name)
					}
				}
			}
		})
	}
}

// The two ways of a removal in which Qubes' own scripts take over.
func TestRemovalHandsBackToQubes(t *testing.T) {
	for _, tc := range []struct {
		name  string
		has   []string
		calls []string
	}{
		{"where its table is, its script fills that with the resolvers of now", []string{"qubes-table"}, []string{asksTable, "qubes-setup-dnat-to-ns ", unload}},
		{"where there is none, there is nobody to take over", nil, []string{asksTable, unload}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t, "netvmd", booted, tc.has)
			m.make("usr/lib/qubes/qubes-setup-dnat-to-ns", standIn)
			if said := m.run("deb/prerm remove"); said != "" {
				t.Errorf("it says %q", said)
			}
			if diff := cmp.Diff(join(disable, inChroot, stop, tc.calls), m.calls()); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

// run fails the test where a script does.
func TestNoStepFailsTheTransaction(t *testing.T) {
	for _, script := range []string{
		"deb/preinst install", "deb/postinst configure ''", "deb/postinst configure 0.9", "deb/postinst abort-remove", "deb/prerm remove",
		"deb/postrm remove", "deb/postrm purge", "rpm/post 1", "rpm/post 2", "rpm/preun 0", "rpm/preun 1", "rpm/postun 0", "rpm/postun 1",
		"archlinux/post_install 1", "archlinux/post_upgrade 1 2", "archlinux/pre_remove 1", "archlinux/post_remove 1",
	} {
		for _, pack := range []string{"netvmd", "netvmd-vm"} {
			newMachine(t, pack, booted, qubes, enabled, []string{"all-fail"}).run(script)
		}
	}
}

// What the shells of the package managers run, as build.sh writes it.
func TestScriptsAreClean(t *testing.T) {
	found, err := filepath.Glob("*/p*")
	if err != nil || len(found) < 10 {
		t.Fatalf("scripts: %q %v", found, err)
	}
	for _, script := range found {
		checkShell(t, "steps.sh", "netvmd.sh", script)
		checkShell(t, "steps.sh", "netvmd-vm.sh", script)
	}
	for _, script := range []string{"build.sh", "licenses.sh"} {
		checkShell(t, script)
	}
}

func checkShell(t *testing.T, parts ...string) {
	t.Helper()
	whole := filepath.Join(t.TempDir(), "script")
	text, err := exec.Command("cat", parts...).Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(whole, text, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("shellcheck", "--shell=sh", whole).CombinedOutput(); err != nil {
		t.Errorf("shellcheck (package shellcheck) of %s: %v\n%s", strings.Join(parts, " and "), err, out)
	}
}
