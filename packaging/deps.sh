#!/bin/sh
# Installs what the build, the lab and the tests need, with apt or dnf; `deps.sh demo` leaves out what only the tests of
# packages need, which is as much again. A machine that has everything is left alone, and no service is started or enabled:
# the lab runs daemons of its own.
set -eu

need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

missing=
for program in NetworkManager nmcli dnsmasq dbus-daemon nft iptables-nft iptables-legacy ip route conntrack strace chattr systemd-nspawn udevadm \
	nsenter busctl gdbus man groff shellcheck gcc git make pkg-config desktop-file-validate \
	rsvg-convert Xvfb trayer tint2 xdotool xclip montage tesseract fc-list; do
	need "$program" || missing="$missing $program"
done
# What the tests of packages use; those are Debian's.
package_tools=
if [ "${1-}" != demo ] && command -v apt-get >/dev/null 2>&1; then
	package_tools='mmdebstrap lintian rpm rpmlint cpio pacman-package-manager makepkg libarchive-tools'
	for program in mmdebstrap lintian rpm rpmlint cpio pacman vercmp bsdtar; do
		need "$program" || missing="$missing $program"
	done
fi
# What netvm-tray is linked with.
for library in gtk+-3.0 ayatana-appindicator3-0.1; do
	pkg-config --exists "$library" 2>/dev/null || missing="$missing $library"
done
# A font for the menu's pictures, and what reads them again.
fc-list 2>/dev/null | grep -q DejaVuSans || missing="$missing DejaVu-fonts"
tesseract --list-langs 2>/dev/null | grep -qx eng || missing="$missing tesseract-eng"
/usr/bin/python3 -c 'import dbus' 2>/dev/null || missing="$missing python3-dbus"
[ -x /usr/lib/polkit-1/polkitd ] || [ -x /usr/libexec/polkitd ] || missing="$missing polkitd"
# The real systemd-resolved. Debian's package would take over /etc/resolv.conf, so there it is only unpacked.
resolved=
for path in /usr/lib/systemd/systemd-resolved /lib/systemd/systemd-resolved bin/resolved/lib/systemd/systemd-resolved \
	bin/resolved/usr/lib/systemd/systemd-resolved; do
	[ -x "$path" ] && resolved=$path
done
go_new_enough() {
	need go && [ "$(printf '%s\n' 1.22 "$(go env GOVERSION | sed 's/^go//')" | sort -V | head -n 1)" = 1.22 ]
}
go_new_enough || missing="$missing go"
[ -n "$resolved" ] || missing="$missing systemd-resolved"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "missing:$missing. Run this as root (sudo) to have them installed." >&2
	exit 1
fi
echo "installing for$missing"

if command -v apt-get >/dev/null 2>&1; then
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q
	# As long as this file says 101, packages start no service (invoke-rc.d, policy-rc.d).
	policy=/usr/sbin/policy-rc.d
	fresh_nm=no
	need NetworkManager || fresh_nm=yes
	if [ ! -e "$policy" ]; then
		trap 'rm -f "$policy"' EXIT INT TERM
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	# shellcheck disable=SC2086 # they are several
	apt-get install -qy --no-install-recommends network-manager dnsmasq-base dbus nftables iptables iproute2 net-tools \
		conntrack strace e2fsprogs systemd systemd-container udev util-linux polkitd libglib2.0-bin python3-dbus man-db groff-base \
		shellcheck gcc libc6-dev git make pkg-config desktop-file-utils libgtk-3-dev libayatana-appindicator3-dev librsvg2-bin \
		xvfb trayer tint2 xdotool xclip imagemagick tesseract-ocr tesseract-ocr-eng fontconfig fonts-dejavu-core \
		$package_tools
	if [ "$fresh_nm" = yes ] && command -v systemctl >/dev/null 2>&1; then
		# This machine's network is not ours to manage at the next boot.
		systemctl disable -q NetworkManager.service NetworkManager-wait-online.service NetworkManager-dispatcher.service
	fi
	go_new_enough || apt-get install -qy --no-install-recommends golang-go
	if [ -z "$resolved" ]; then
		unpack=$(mktemp -d)
		chmod 755 "$unpack"
		(cd "$unpack" && apt-get download -q systemd-resolved)
		mkdir -p bin/resolved
		dpkg-deb -x "$unpack"/systemd-resolved_*.deb bin/resolved
		rm -r "$unpack"
	fi
elif command -v dnf >/dev/null 2>&1; then
	dnf install -qy NetworkManager dnsmasq dbus-daemon nftables iptables-nft iptables-legacy iproute net-tools conntrack-tools strace e2fsprogs \
		systemd-resolved systemd-container systemd-udev util-linux polkit glib2 python3-dbus man-db groff-base ShellCheck \
		gcc git make golang pkgconf-pkg-config desktop-file-utils gtk3-devel libayatana-appindicator-gtk3-devel librsvg2-tools \
		xorg-x11-server-Xvfb trayer tint2 xdotool xclip ImageMagick tesseract tesseract-langpack-eng fontconfig \
		dejavu-sans-fonts
else
	echo "neither apt-get nor dnf is here: install what has these programs:$missing" >&2
	exit 1
fi

if ! go_new_enough; then
	echo "Go 1.22 or newer is needed, and this distribution has none: install it from its backports or from the Go project" >&2
	exit 1
fi
