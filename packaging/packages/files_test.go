//go:build packages

package packages

import (
	"slices"
	"strings"
)

// othersFiles change while a Debian runs, whether netvmd is there or not.
const othersFiles = `^(/etc/(machine-id|resolv.conf|\.pwd.lock|ld.so.cache)|/var/(log|cache|tmp)/.*|/var/lib/(apt|NetworkManager|systemd|dbus|pacman)/.*|` +
	`/var/lib/dpkg/(status|available|lock|triggers|diversions|statoverride|info/format)(/.*|-old|-frontend)?|/tmp/.*|/root/\..*)$`

// listFiles prints what is on a disk: a line each, with kind, mode, owner and what a link leads to.
const listFiles = `find / -xdev -regextype posix-extended -not -regex '` + othersFiles + `' -printf '%p %y %m %u:%g %l\n' | sort`

// files are all that the netvm has on its disk, and its users.
func (n *netvm) files() string {
	n.t.Helper()
	return n.sh(listFiles + "; getent passwd; getent group")
}

// same wants that nothing changed: it shows the lines that only one of two texts has.
func (n *netvm) same(what, before, after string) {
	n.t.Helper()
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	for _, line := range was {
		if !slices.Contains(is, line) {
			n.t.Errorf("%s lacks %s", what, line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			n.t.Errorf("%s has newly %s", what, line)
		}
	}
}
