#!/bin/sh
# make packages: a package of each format from each tree that make install made, ROOTS/netvmd and ROOTS/netvmd-tray.
#   build.sh ROOTS DIST VERSION MAINTAINER
# SOURCE_DATE_EPOCH is the time of every file, so that what is built twice is the same.
set -eu
: "${SOURCE_DATE_EPOCH:?}"
here=$(realpath "$(dirname "$0")")
roots=$(realpath "$1")
mkdir -p "$2"
dist=$(realpath "$2")
version=$3 maintainer=$4

# Newer ones need a Go that is not everywhere.
nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0

# finish gives a tree what only a package has.
finish() {
	find "$1/usr/share/man" -type f -exec gzip -9n {} +
	find "$1" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
}

# A format's scripts are the steps that all have in common, and when to take them.
write_scripts() {
	mkdir -p "$roots/scripts/$1"
	for script in "$here/$1"/*; do
		cat "$here/steps.sh" "$script" >"$roots/scripts/$1/${script##*/}"
	done
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

for format in deb rpm archlinux; do
	write_scripts "$format"
done
# The configurations name files from here.
cd "$roots"
for package in netvmd netvmd-tray; do
	finish "$package"
	for format in deb rpm archlinux; do
		ARCH="$(go env GOARCH)" PACKAGE_VERSION="$(version_of "$format")" DESCRIPTION=$(description_of "$format" "$package") \
			MAINTAINER=$maintainer \
			go run "$nfpm" package --config "$here/$package.yaml" --packager "$format" --target "$dist" |
			sed -n 's/^created package: //p'
	done
done
