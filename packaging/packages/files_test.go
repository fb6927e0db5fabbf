//go:build packages

package packages

import (
	"slices"
	"strings"
)

// othersFiles change while a Debian runs, whether netvmd is there or not.
const othersFiles = `^(/etc/(machine-id|resolv.conf|\.pwd.lock|ld.so.cache)|/var/(log|cache|tmp)/.*|/var/lib/(apt|NetworkManager|systemd|dbus|pacman|rpm)/.*|` +
	`/var/lib/dpkg/(status|available|lock|triggers|diversions|statoverride|info/format)(/.*|-old|-frontend)?|/tmp/.*|/root/\..*)$`

// listFiles prints what is on a disk: a line each, with kind, mode, owner and what a link leads to.
const listFiles = `find / -xdev -regextype posix-extended -not -regex '` + othersFiles + `' -printf '%p %y %m %u:%g %l\n' | sort`

// files are all that it has on its disk, and its users.
func (d *debian) files() string {
	d.t.Helper()
	return d.sh(listFiles + "; getent passwd; getent group")
}

// differences are the lines that only one of two texts has, marked with - and +.
func differences(before, after string) (out []string) {
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	for _, l := range was {
		if !slices.Contains(is, l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range is {
		if !slices.Contains(was, l) {
			out = append(out, "+ "+l)
		}
	}
	return out
}

// same wants that nothing changed.
func (d *debian) same(what, before, after string) {
	d.t.Helper()
	if changed := differences(before, after); len(changed) > 0 {
		d.t.Errorf("%s changed:\n%s", what, strings.Join(changed, "\n"))
	}
}
