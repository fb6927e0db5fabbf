//go:build packages

package packages

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"netvmd/internal/lab"
)

// foreign is another distribution's package manager. Debian has it too: here it stands for that of its own distribution,
// which is where the packages' dependencies are, so nobody looks for these.
type foreign struct {
	name string
	// The programs' arguments are package files, or the packages' names.
	install, upgrade, remove, verify string
	// ending is that of the packages' files.
	ending string
	// An admin's file, and a new default beside it.
	saved, fresh string
	// folders are those that every system has where this package manager is at home, and that none of our packages has.
	folders []string
}

var (
	rpm = foreign{
		name:    "rpm",
		install: "rpm --force-debian --nodeps --install", upgrade: "rpm --force-debian --nodeps --upgrade", remove: "rpm --force-debian --erase",
		verify: "rpm --nodeps --verify", ending: ".rpm", saved: ".rpmsave", fresh: ".rpmnew",
		folders: []string{"etc/xdg/autostart", "usr/share/applications", "usr/share/fish/vendor_completions.d", "usr/share/icons",
			"usr/share/licenses", "usr/share/zsh/site-functions", "var/lib/rpm"},
	}
	pacman = foreign{
		name:    "pacman",
		install: "pacman --noconfirm --nodeps --nodeps --upgrade", upgrade: "pacman --noconfirm --nodeps --nodeps --upgrade",
		remove: "pacman --noconfirm --remove", verify: "pacman --query --check --check", ending: ".pkg.tar.zst",
		saved: ".pacsave", fresh: ".pacnew",
		folders: []string{"var/lib/pacman"},
	}
)

const (
	configured = "/etc/netvmd/netvmd.toml"
	ourNames   = " netvmd netvmd-vm netvmd-tray netvmd-dom0"
	// hint is what an installation says of how to go on.
	hint = "systemctl enable --now netvmd"
)

// packages are the files of all packages, in the netvm.
func (f foreign) packages(version string) string {
	return " " + packagesAt + "/" + version + "/netvmd*" + f.ending
}

// talk is what a package manager says, without its lines that it says of every package.
func (f foreign) talk(said string) string {
	if f.name != "pacman" {
		return said
	}
	var rest []string
	for _, line := range strings.Split(said, "\n") {
		usual := line == "" || strings.HasPrefix(line, "Packages (") || strings.HasPrefix(line, "Total ") || strings.HasPrefix(line, "Net ") ||
			strings.HasPrefix(line, "::") || strings.HasSuffix(line, "...")
		if !usual {
			rest = append(rest, line)
		}
	}
	return strings.Join(rest, "\n")
}

func TestRPM(t *testing.T)  { rpm.tell(t) }
func TestArch(t *testing.T) { pacman.tell(t) }

// tell tells the life of the packages of a format, as TestOnPlainXen does of Debian's.
func (f foreign) tell(t *testing.T) {
	n := newNetVM(t)
	f.settle(n)
	f.inAFolder(n)
	n.boot(lab.Options{})
	before := n.files()
	f.comes(n)
	f.isUpgraded(n)
	f.goes(n, before)
}

// settle gives the Debian that is not booted yet what its package manager has at home.
func (f foreign) settle(n *netvm) {
	n.t.Helper()
	in := func(path string) string { return filepath.Join(n.system.Dir, path) }
	n.must(os.Remove(in("bin/sh")))
	n.must(os.Symlink("bash", in("bin/sh")))
	for _, folder := range f.folders {
		n.must(os.MkdirAll(in(folder), 0o755))
	}
	// Nobody but dpkg knows that this folder is wanted, even when it is empty.
	n.must(os.WriteFile(in("usr/lib/NetworkManager/conf.d/.keep"), nil, 0o644))
}

// inAFolder installs the packages in a system that does not run, and removes them again.
func (f foreign) inAFolder(n *netvm) {
	n.step("where no system runs, they come and go without a word but the hint", func(n *netvm) {
		before := n.onDisk()
		if said := f.inFolder(n, f.install, packagesFolder+"/0.9.1/netvmd*"+f.ending); strings.Contains(said, "\n") || !strings.Contains(said, hint) {
			n.t.Errorf("it said %q", said)
		}
		if said := f.inFolder(n, f.remove, ourNames); said != "" {
			n.t.Errorf("it said %q", said)
		}
		n.same("what is on the disk", before, n.onDisk())
	})
	n.step("in a Qubes template they enable the units, and take that back when they go", func(n *netvm) {
		marker := filepath.Join(n.system.Dir, "usr/share/qubes/marker-vm")
		n.must(errors.Join(os.Mkdir(filepath.Dir(marker), 0o755), os.WriteFile(marker, nil, 0o644)))
		before := n.onDisk()
		if said := f.inFolder(n, f.install, packagesFolder+"/0.9.1/netvmd*"+f.ending); said != "" {
			n.t.Errorf("it said %q", said)
		}
		for _, unit := range []string{"netvmd.service", "netvmd-firewall.service", "netvmd-vifs.service"} {
			if out, err := exec.CommandContext(n.ctx, "systemctl", "--root="+n.system.Dir, "is-enabled", unit).CombinedOutput(); err != nil {
				n.t.Errorf("%s: %v: %s", unit, err, out)
			}
		}
		if said := f.inFolder(n, f.remove, ourNames); said != "" {
			n.t.Errorf("it said %q", said)
		}
		n.same("what is on the disk", before, n.onDisk())
		n.must(os.RemoveAll(filepath.Dir(marker)))
	})
}

// inFolder has this machine's package manager work on the folder of a netvm that does not run, and returns what it said.
func (f foreign) inFolder(n *netvm, command, args string) string {
	n.t.Helper()
	program, rest, _ := strings.Cut(command, " ")
	line := strings.Join([]string{program, "--root", n.system.Dir, rest, args}, " ")
	out, err := exec.CommandContext(n.ctx, "sh", "-c", line).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: %v: %s", line, err, out)
	}
	return f.talk(strings.TrimSpace(string(out)))
}

// onDisk is files for a netvm that does not run.
func (n *netvm) onDisk() string {
	n.t.Helper()
	out, err := exec.CommandContext(n.ctx, "chroot", n.system.Dir, "sh", "-c", listFiles).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func (f foreign) comes(n *netvm) {
	n.step("installing them starts nothing and changes nothing in the kernel", func(n *netvm) {
		before := n.kernel()
		if said := f.talk(n.sh(f.install + f.packages("0.9.1"))); strings.Count(said, "\n") > 0 || !strings.Contains(said, hint) {
			n.t.Errorf("it said %q", said)
		}
		n.same("the kernel", before, n.kernel())
		n.has("dom0's program", n.sh("qvm-dom0-network-via-netvm --help"), "up|down")
		n.says("systemctl is-enabled netvmd.service netvmd-firewall.service", "disabled\ndisabled")
		n.says("systemctl is-active netvmd.service netvmd-firewall.service", "inactive\ninactive")
		f.isWhole(n)
	})
	n.step("once enabled, it serves an AppVM", func(n *netvm) {
		n.sh(`sed -i 's/^#gateway = ""/gateway = "` + gateway + `"/' ` + configured)
		n.sh("systemctl enable --now netvmd.service")
		n.says("systemctl is-active netvmd.service netvmd-firewall.service", "active\nactive")
		n.must(n.Work.Attach(n.ctx))
		n.served(n.Home.Resolvers[0], n.Home.Resolvers[1])
		f.isWhole(n, configured)
	})
}

// isWhole has the package manager compare what it installed with what is there: only these files may differ.
func (f foreign) isWhole(n *netvm, changed ...string) {
	n.t.Helper()
	out, err := n.NetVM.Machine.Run(n.ctx, "sh", "-c", f.verify+ourNames)
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		fine := line == "" || strings.HasSuffix(line, ", 0 altered files")
		for _, path := range changed {
			fine = fine || strings.Contains(line, path)
		}
		if !fine {
			n.t.Errorf("%s (%v): %s", f.verify, err, line)
		}
	}
}

func (f foreign) isUpgraded(n *netvm) {
	n.step("an upgrade loses no query and no connection, and runs the new version", func(n *netvm) {
		l, before, rules := n.load(), n.pid(), n.rules()
		if said := f.talk(n.sh(f.upgrade + f.packages("0.9.2"))); said != "" {
			n.t.Errorf("it said %q", said)
		}
		n.served(n.Home.Resolvers[0], n.Home.Resolvers[1])
		l.unharmed(n.Home.Resolvers[0], n.Home.Resolvers[1])
		if n.pid() == before {
			n.t.Error("the old one still runs")
		}
		n.same("the firewall", rules, n.rules())
		n.runs("0.9.2")
		n.says("systemctl is-enabled netvmd.service netvmd-firewall.service", "enabled\nenabled")
	})
	n.step("a changed configuration is kept, and a new default is put beside it", func(n *netvm) {
		n.says("ls /etc/netvmd", "netvmd.toml")
		said := f.talk(n.sh(f.upgrade + f.packages("0.9.3")))
		n.has("what it said", said, configured+f.fresh)
		n.has(configured, n.sh("cat "+configured), `gateway = "`+gateway+`"`)
		n.has("the new default", n.sh("cat "+configured+f.fresh), "# Another default.")
		n.served(n.Home.Resolvers[0], n.Home.Resolvers[1])
		n.sh("rm " + configured + f.fresh)
	})
}

// rules are those of the firewall with their handles, which are others when a rule was loaded anew.
func (n *netvm) rules() string {
	n.t.Helper()
	return n.sh("nft -s -a list table ip netvmd | grep handle")
}

func (f foreign) goes(n *netvm, before string) {
	n.step("removing them cuts nobody off, and says what stays", func(n *netvm) {
		l := n.load()
		said := f.talk(n.sh(f.remove + ourNames))
		n.answered(n.Home.Resolvers[0], n.Home.Resolvers[1])
		l.unharmed(n.Home.Resolvers[0], n.Home.Resolvers[1])
		n.has("what it said", said, n.Work.Vif, "its rules stay", configured+f.saved)
		n.says("systemctl is-active netvmd.service netvmd-firewall.service", "inactive\ninactive")
	})
	n.step("installed again, it takes over what is there without a change", func(n *netvm) {
		l, kernel := n.load(), n.kernel()
		n.sh(f.install + f.packages("0.9.3"))
		n.sh("mv " + configured + f.saved + " " + configured)
		n.sh("systemctl enable --now netvmd.service")
		n.served(n.Home.Resolvers[0], n.Home.Resolvers[1])
		l.unharmed(n.Home.Resolvers[0], n.Home.Resolvers[1])
		n.same("the kernel", kernel, n.kernel())
	})
	n.step("removed when the AppVM has gone, they leave nothing but the admin's configuration", func(n *netvm) {
		n.must(n.Work.Detach(n.ctx))
		n.sh(f.remove + ourNames)
		n.says("nft list tables", "")
		n.says("find /run -name '*netvm*'", "")
		n.says("systemctl list-unit-files --no-legend 'netvm*' '*NetVM1*'", "")
		n.sh("rm " + configured + f.saved + " && rmdir /etc/netvmd")
		n.same("what is on the disk", before, n.files())
	})
}
