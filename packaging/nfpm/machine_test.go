package nfpm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// standIn notes how it is called, and answers what the machine would: it knows what runs and what is enabled by files.
const standIn = `#!/bin/sh
echo "${0##*/} $*" >>/calls
for drop_in in /run/systemd/system/*.d/*; do
	[ ! -e "$drop_in" ] || echo "  with $(tr '\n' ' ' <"$drop_in")" >>/calls
done
[ ! -e /all-fail ] || exit 1
case "${0##*/} $*" in
"systemctl --quiet is-enabled "*) [ -e "/enabled/$3" ] ;;
"systemctl --quiet is-active "*) [ -e "/active/$3" ] ;;
"systemd-detect-virt "*) [ -e /chroot ] ;;
"nft list table ip qubes") [ -e /qubes-table ] ;;
"netvmctl uplink show") [ -e /served ] ;;
"netvmctl firewall unload") [ ! -e /admitted ] || { echo 'vif4.0 would be cut off' >&2; exit 1; } ;;
esac
`

// programs are all that the scripts call, but for those that every machine has.
var programs = []string{
	"systemctl", "deb-systemd-invoke", "systemd-tmpfiles", "systemd-detect-virt", "udevadm", "nmcli", "nft", "netvmctl",
}

// What a machine has, as files of its root.
var (
	booted  = []string{"run/systemd/system/"}
	qubes   = []string{"usr/share/qubes/marker-vm"}
	on      = []string{"run/qubes-service/netvmd"}
	enabled = []string{"enabled/netvmd-firewall.service", "enabled/netvmd.service", "enabled/netvmd-vifs.service"}
	udev    = []string{"active/systemd-udevd.service"}
	nm      = []string{"active/NetworkManager.service"}
	state   = []string{"run/netvmd/vifs/vif4.0.json", "var/lib/netvmd/override.json", "etc/netvmd/"}
	uplink  = []string{"run/netvmd/uplinks/eth0.json"}
	vif     = []string{"sys/class/net/vif4.0/"}
)

// machine is the root of one, in which a package's scripts run.
type machine struct {
	*testing.T
	root, pack string
}

// newMachine has the real shell and its tools of this machine, and of what a domain has the given files alone.
func newMachine(t *testing.T, pack string, has ...[]string) machine {
	t.Helper()
	m := machine{t, t.TempDir(), pack}
	for _, files := range append(has, []string{"host/", "dev/", "usr/", "run/", "calls"}) {
		for _, f := range files {
			m.make(f, "")
		}
	}
	for link, target := range map[string]string{
		"bin": "host/bin", "usr/bin": "../host/bin", "lib": "host/lib", "lib64": "host/lib64",
	} {
		if err := os.Symlink(target, filepath.Join(m.root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range programs {
		m.make("stand-ins/"+p, standIn)
	}
	return m
}

// make makes a file, or a folder where its name ends with a slash.
func (m machine) make(name, text string) {
	m.Helper()
	path := filepath.Join(m.root, name)
	folder := filepath.Dir(path)
	if strings.HasSuffix(name, "/") {
		folder = path
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		m.Fatal(err)
	}
	if folder == path {
		return
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		m.Fatal(err)
	}
}

// run runs a format's script as its package manager does, and gives what it says. It must succeed.
func (m machine) run(call string) string {
	m.Helper()
	words := strings.Fields(call)
	script, err := exec.Command("cat", "steps.sh", m.pack+".sh", words[0]).Output()
	if err != nil {
		m.Fatal(err)
	}
	m.make("script", string(script))
	cmd := exec.Command("unshare", append([]string{
		"--mount", "sh", "-ec", `mount --rbind /usr "$0/host"; mount --rbind /dev "$0/dev"; exec chroot "$0" /bin/sh /script "$@"`, m.root,
	}, words[1:]...)...)
	// A package manager gives an empty argument for a version that there is none of.
	for i, arg := range cmd.Args {
		if arg == "''" {
			cmd.Args[i] = ""
		}
	}
	cmd.Env = []string{"PATH=/stand-ins:/usr/sbin:/usr/bin:/sbin:/bin", "DPKG_MAINTSCRIPT_PACKAGE=" + m.pack}
	said, err := cmd.CombinedOutput()
	if err != nil {
		m.Fatalf("%s: %v\n%s", call, err, said)
	}
	return string(said)
}

// calls are those since the last time that one asked.
func (m machine) calls() []string {
	m.Helper()
	path := filepath.Join(m.root, "calls")
	text, err := os.ReadFile(path)
	if err != nil {
		m.Fatal(err)
	}
	if err := os.Truncate(path, 0); err != nil {
		m.Fatal(err)
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

func (m machine) has(name string) bool {
	m.Helper()
	_, err := os.Lstat(filepath.Join(m.root, name))
	if err != nil && !os.IsNotExist(err) {
		m.Fatal(err)
	}
	return err == nil
}
