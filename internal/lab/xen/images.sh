#!/bin/bash
# images.sh WORK BIN: builds what the machine boots from WORK/debian and the programs of BIN: xen, vmlinux and
# dom0.cpio, which holds the images of the driver domain and of the AppVMs.
set -euo pipefail
work=$1 bin=$2
here=$(dirname "$(realpath "$0")")
debian=$work/debian
xen=$(echo "$debian"/usr/lib/xen-[0-9]*/bin)
kernel=$(basename "$debian"/lib/modules/*)
libraries=usr/lib/x86_64-linux-gnu
export PATH=$PATH:/usr/sbin:/sbin

# As ELF files, because the machine would take ten seconds to unpack each compressed one.
unpack_kernels() {
	gzip -dc "$debian"/boot/xen-*-amd64.gz >"$work/xen"
	unpack_linux $'\xFD7zXZ' xz || unpack_linux $'\x28\xB5\x2F\xFD' zstd || { echo "no kernel found in vmlinuz-$kernel" >&2; return 1; }
	# Newer Debians compress modules too, which busybox cannot load.
	find "$debian/lib/modules" -name '*.ko.xz' -exec xz -d {} +
	depmod -b "$debian" "$kernel"
}

# unpack_linux MAGIC PROGRAM: the kernel lies compressed in the middle of its loader, at the first bytes that are the
# program's magic. The program complains of what comes after it.
unpack_linux() {
	local loader=$debian/boot/vmlinuz-$kernel offset
	offset=$(LC_ALL=C grep -aobF "$1" "$loader" | head -n 1 | cut -d : -f 1) || return
	tail -c "+$((offset + 1))" "$loader" | "$2" -dc 2>/dev/null >"$work/vmlinux" || true
	[ "$(head -c 4 "$work/vmlinux")" = $'\x7fELF' ]
}

# new_tree TREE: an empty system with busybox.
new_tree() {
	local applet
	rm -rf "$1"
	mkdir -p "$1"/{bin,dev,etc,proc,run,sys,tmp,root,lab,usr/bin,usr/sbin,usr/lib,lib64,var/log}
	ln -s /run "$1/var/run"
	ln -s usr/lib "$1/lib"
	ln -s bin "$1/sbin"
	cp /bin/busybox "$1/bin/"
	for applet in $(/bin/busybox --list); do
		[ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"
	done
	echo root:x:0:0::/root:/bin/sh >"$1/etc/passwd"
	echo root:x:0: >"$1/etc/group"
	cp "$here/domains/console.sh" "$1/lab/"
}

# add_modules TREE MODULE...: kernel modules with all that they need, for modprobe to find.
add_modules() {
	local tree=$1 files file
	shift
	mkdir -p "$tree/lib/modules/$kernel"
	mapfile -t files < <(for m; do modprobe -d "$debian" -S "$kernel" -C /dev/null --show-depends "$m"; done |
		awk '$1 == "insmod" {print $2}' | sort -u)
	for file in "${files[@]}"; do
		install -D -m 0644 "$file" "$tree/lib/modules/$kernel/${file#*"/$kernel/"}"
	done
	cp "$debian/lib/modules/$kernel"/modules.{builtin,builtin.modinfo,order} "$tree/lib/modules/$kernel/"
	depmod -b "$tree" "$kernel"
}

# netfilter_modules prints the names of all that nftables may ask for.
netfilter_modules() {
	find "$debian/lib/modules/$kernel/kernel/net"/{netfilter,ipv4/netfilter,ipv6/netfilter} -name 'n[ft]*.ko' -printf '%f\n' |
		sed 's/\.ko$//'
}

# add_programs TREE PROGRAM...: programs at the paths that they have here or in Debian's tree, with their libraries.
add_programs() {
	local tree=$1 program library
	shift
	for program; do
		install -D -m 0755 "$program" "$tree/${program#"$debian"}"
		LD_LIBRARY_PATH=$debian/$libraries ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
			case $library in
			*/ld-linux*) cp -Ln "$library" "$tree/lib64/" ;;
			*) cp -Ln "$library" "$tree/$libraries/" ;;
			esac
		done
	done
}

# add_ours TREE PROGRAM...: programs of BIN where packages would put them.
add_ours() {
	local tree=$1 program
	shift
	for program; do
		case $program in
		vif-route-netvm)
			install -D -m 0755 "$bin/$program" "$tree/usr/lib/netvmd/$program"
			ln -s "/usr/lib/netvmd/$program" "$tree/etc/xen/scripts/$program"
			;;
		*) install -D -m 0755 "$bin/$program" "$tree/usr/bin/$program" ;;
		esac
	done
}

# pack TREE FILE
pack() { (cd "$1" && find . | cpio -o -H newc --quiet) >"$2"; }

build_appvm() {
	local tree=$work/appvm
	new_tree "$tree"
	add_modules "$tree" xen-netfront
	add_ours "$tree" netvm-lab netvmctl
	cp "$here/domains/served.sh" "$tree/lab/"
	install -m 0755 "$here/domains/appvm-init" "$tree/init"
	pack "$tree" "$tree.cpio"
}

# The tree of dom0 and of the driver domain: a backend with the toolstack's programs and ours.
build_backend() {
	local tree=$1 modules
	new_tree "$tree"
	mkdir -p "$tree"/{run/{lock,netns,xen,xenstored},etc/{xen/scripts,netvmd},var/lib/xen,var/lib/xenstored,var/log/xen/console} \
		"$tree/$libraries"
	ln -s /run/lock "$tree/var/lock"
	: >"$tree/etc/xen/xl.conf"
	mapfile -t modules < <(netfilter_modules)
	add_modules "$tree" xen-privcmd xenfs xen-evtchn xen-gntdev xen-gntalloc xen-netback xen-netfront veth "${modules[@]}"
	# A real ip, as busybox's knows no groups and namespaces; and bash as sh, as busybox's prefers busybox's own ip.
	rm "$tree"/bin/{ip,sh}
	add_programs "$tree" /bin/{ip,bash} /usr/sbin/{nft,conntrack,dnsmasq} "$debian"/usr/bin/xenstore-{read,write,rm,ls,exists} \
		"$xen"/{xl,xenstored,xenconsoled,xen-init-dom0,libxl-save-helper}
	ln -s bash "$tree/bin/sh"
	# xl ends its threads by pthread_cancel, which loads this library by name.
	cp -L "/$libraries/libgcc_s.so.1" "$tree/$libraries/"
	add_ours "$tree" netvmd netvmctl netvm-lab vif-route-netvm
	cp "$here"/domains/{backend.sh,served.sh,stream,netvmd.toml,dnsmasq.conf} "$tree/lab/"
	ln -s /lab/netvmd.toml "$tree/etc/netvmd/netvmd.toml"
}

build_domains() {
	local tree=$work/backend
	build_backend "$tree"
	install -m 0755 "$here/domains/driver-init" "$tree/init"
	pack "$tree" "$work/driver.cpio"

	install -m 0755 "$here/domains/dom0-init" "$tree/init"
	add_programs "$tree" /usr/bin/strace
	add_ours "$tree" qvm-dom0-network-via-netvm
	cp "$here"/domains/{story,checks.sh,domains.sh,chain.sh,visit.sh} "$work"/{vmlinux,appvm.cpio,driver.cpio} "$tree/lab/"
	pack "$tree" "$work/dom0.cpio"
}

unpack_kernels
build_appvm
build_domains
