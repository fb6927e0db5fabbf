#!/bin/sh
# make packages: a package of each format from each tree that make install made, ROOTS/netvmd and so on.
#   build.sh ROOTS DIST VERSION MAINTAINER
# SOURCE_DATE_EPOCH is the time of every file, so that what is built twice is the same.
set -eu
: "${SOURCE_DATE_EPOCH:?}"
here=$(realpath "$(dirname "$0")")
roots=$(realpath "$1")
mkdir -p "$2"
dist=$(realpath "$2")
version=$3 maintainer=$4

# Pinned, as the Makefile's tools are: another one may write other bytes.
nfpm_version=v2.43.0
tools=${XDG_CACHE_HOME:-$HOME/.cache}/netvmd/tools
nfpm=$tools/nfpm-$nfpm_version

# get_nfpm builds it once a machine. Two may do so at the same time: it comes under its name when it is whole.
get_nfpm() {
	[ ! -x "$nfpm" ] || return 0
	mkdir -p "$tools"
	fresh=$(mktemp -d "$tools/fresh.XXXXXX")
	GOBIN=$fresh go install "github.com/goreleaser/nfpm/v2/cmd/nfpm@$nfpm_version"
	mv "$fresh/nfpm" "$nfpm"
	rmdir "$fresh"
}

# finish makes a tree what a package wants: compressed pages, folders that everybody may read, one time.
finish() {
	find "$1/usr/share/man" -type f ! -name '*.gz' -exec gzip -9n {} +
	find "$1" -type d -exec chmod 755 {} +
	find "$1" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
}

# write_texts makes what the distributions want beside the programs: whose work they are, what changed, and why lintian is
# overridden.
write_texts() {
	texts=texts/$1
	mkdir -p "$texts"
	find "$roots/$1/usr" -name doc -prune -o -type f -perm -100 -exec "$here/licenses.sh" {} + >"$texts/libraries"
	cat "$here/copyright" "$texts/libraries" >"$texts/copyright"
	cat "$here/../../LICENSE" "$texts/libraries" >"$texts/LICENSE"
	date=$(date --utc --rfc-email --date "@$SOURCE_DATE_EPOCH")
	sed "s|^netvmd |$1 |; s|@VERSION@|$(version_of deb)|; s|@MAINTAINER@|$maintainer|; s|@DATE@|$date|" "$here/changelog" |
		gzip -9n >"$texts/changelog.gz"
	cat "$here/lintian/$1" >"$texts/lintian"
}

# A package's scripts for a format are its steps, and when to take them. Those without a file of steps have none.
write_scripts() {
	[ -e "$here/$1.sh" ] || return 0
	mkdir -p "scripts/$1/$2"
	for script in "$here/$2"/*; do
		cat "$here/steps.sh" "$here/$1.sh" "$script" >"scripts/$1/$2/${script##*/}"
	done
}

write_config() {
	mkdir -p config
	sed "s/NAME/$1/g" "$here/common.yaml" | cat - "$here/$1.yaml" >"config/$1.yaml"
}

# A version with "-" is older than the one without that. Debian and Fedora say so with "~", Arch with a letter.
version_of() {
	case $1 in
	archlinux) printf %s "$version" | tr -d - ;;
	*) printf %s "$version" | tr - '~' ;;
	esac
}

# Arch has room for the first line. Debian knows that it is none of the description's.
description_of() {
	case $1 in
	archlinux) sed -n 1p "$here/$2.description" ;;
	deb) sed 2d "$here/$2.description" ;;
	*) cat "$here/$2.description" ;;
	esac
}

# pack makes one package. What nfpm says is of interest when it fails.
pack() {
	said=$(PACKAGE_VERSION=$(version_of "$1") DESCRIPTION=$(description_of "$1" "$2") \
		"$nfpm" package --config "config/$2.yaml" --packager "$1" --target "$dist") || { echo "$said" >&2; exit 1; }
	echo "${said##*created package: }"
}

ARCH=$(go env GOARCH)
# The oldest C library that the tray runs with, as its symbols say: the newest version that one of them is of.
GLIBC=$(objdump -T "$roots/netvmd-tray/usr/bin/netvm-tray" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
GLIBC=${GLIBC#GLIBC_} MAINTAINER=$maintainer
export ARCH GLIBC MAINTAINER

umask 022
get_nfpm
# From here the configurations find their files.
cd "$roots"
for tree in netvmd*; do
	finish "$tree"
	write_texts "$tree"
	write_config "$tree"
	for format in deb rpm archlinux; do
		write_scripts "$tree" "$format"
		pack "$format" "$tree"
	done
done
