#!/bin/sh
# make packages: makes the packages of every format from the trees that make install made, ROOTS/netvmd and
# ROOTS/netvmd-tray.
#   build.sh ROOTS DIST VERSION MAINTAINER
# SOURCE_DATE_EPOCH is every file's time, so that what is built twice is the same.
set -eu
: "${SOURCE_DATE_EPOCH:?}"
here=$(dirname "$0")
roots=$1 dist=$2 version=$3
export MAINTAINER="$4"

# Newer ones need a Go that is not everywhere.
nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0

# finish gives a tree what a package has beside what make install puts there.
finish() {
	find "$1/usr/share/man" -type f ! -name '*.gz' -exec gzip -9n {} +
	# To the second, links too.
	find "$1" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
}

# A version with "-" is one before a release: Debian and Fedora say so with "~", and Arch with letters that follow a digit.
version_of() {
	case $1 in
	archlinux) printf %s "$version" | tr -d - ;;
	*) printf %s "$version" | tr - '~' ;;
	esac
}

# Arch has room for one line; Debian's first line is known not to belong to the rest.
description_of() {
	case $1 in
	archlinux) sed -n 1p "$here/$2.description" ;;
	deb) sed 2d "$here/$2.description" ;;
	*) cat "$here/$2.description" ;;
	esac
}

ARCH=$(go env GOARCH)
export ARCH
mkdir -p "$dist"
for package in netvmd netvmd-tray; do
	export ROOT="$roots/$package"
	finish "$ROOT"
	for format in deb rpm archlinux; do
		PACKAGE_VERSION=$(version_of "$format")
		DESCRIPTION=$(description_of "$format" "$package")
		export PACKAGE_VERSION DESCRIPTION
		go run "$nfpm" package --config "$here/$package.yaml" --packager "$format" --target "$dist" | sed -n 's/^created package: //p'
	done
done
