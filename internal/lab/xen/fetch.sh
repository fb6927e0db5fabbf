#!/bin/bash
# fetch.sh WORK: Debian's Xen and kernel, unpacked into WORK/debian. Nothing of Xen is installed on this machine. The
# packages are kept in WORK/debs and fetched again only when Debian has newer ones.
set -euo pipefail
work=$1

# need PACKAGE PROGRAM: the package that has a program, if the program is not here.
need() { [ -n "$(PATH=$PATH:/usr/sbin:/sbin command -v "$2")" ] || echo "$1"; }

install_tools() {
	local missing
	mapfile -t missing < <(need qemu-system-x86 qemu-system-x86_64; need cpio cpio; need xz-utils xz; need zstd zstd; need kmod depmod
		# The other busybox package needs libraries, which the first program of a domain would not find.
		dpkg-query -W busybox-static >/dev/null 2>&1 || echo busybox-static)
	[ ${#missing[@]} -gt 0 ] || return 0
	if [ "$(id -u)" != 0 ]; then
		echo "missing: ${missing[*]}. Run this as root (sudo) to have them installed." >&2
		exit 1
	fi
	echo "installing ${missing[*]}"
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
}

# depends PACKAGE PATTERN: what the package depends on, as far as it matches.
depends() { apt-cache depends "$1" | awk '$1 == "Depends:" {print $2}' | grep -E "$2"; }

# The hypervisor, the toolstack with its libraries, and the kernel: all that is unpacked.
packages() {
	local hypervisor utils
	hypervisor=$(depends xen-system-amd64 '^xen-hypervisor-[0-9.]+-amd64$')
	utils=$(depends xen-system-amd64 '^xen-utils-[0-9.]+$')
	printf '%s\n' "$hypervisor" "$utils" xen-utils-common xenstore-utils
	depends linux-image-amd64 '^linux-image-'
	apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
		"$utils" xenstore-utils | grep -E '^(libxen|libyajl)' | sort -u
}

fetch_packages() {
	local names files file
	mapfile -t names < <(packages)
	# The file's name carries the version: 'URI' NAME SIZE HASH.
	mapfile -t files < <(apt-get download --print-uris "${names[@]}" | awk '{print $2}')
	mkdir -p debs
	cd debs
	for file in *.deb; do
		[[ " ${files[*]} " == *" $file "* ]] || rm -f "$file"
	done
	# apt looks at the size and hash of what lies there, and leaves a good one alone.
	apt-get download -q -o APT::Sandbox::User=root "${names[@]}"
}

install_tools
cd "$work"
# Package lists that are absent or name files that Debian no longer has are read again, once.
(fetch_packages) || { apt-get update -q && (fetch_packages); }
# Two kernels in one tree would break the build, so it is always unpacked anew.
rm -rf debian
for deb in debs/*.deb; do dpkg-deb -x "$deb" debian; done
# Since Debian 13 kernels lie under /usr.
[ -e debian/lib ] || ln -s usr/lib debian/lib
