#!/bin/bash
# make test-packages: the packages in a Debian that is booted with systemd. Two versions are built, and the tests of this
# folder tell what becomes of a netvm that they are installed in, upgraded, and removed from.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."

if ! command -v apt-get >/dev/null; then
	echo "make test-packages needs Debian: it boots one of the machine's own release" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "make test-packages boots containers: run it as root (sudo)" >&2
	exit 1
fi

root=$(internal/lab/container/root.sh "${XDG_CACHE_HOME:-$HOME/.cache}/netvmd/packages" \
	systemd-sysv dbus network-manager nftables iproute2 udev polkitd)
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
for version in 0.9.1 0.9.2; do
	make --no-print-directory packages DIST="$built/$version" BIN="$built/bin" VERSION=$version >"$built/log" 2>&1 ||
		{ cat "$built/log" >&2; exit 1; }
done
NETVMD_TEST_ROOT=$root NETVMD_TEST_PACKAGES=$built \
	go test -tags packages -count=1 -v -timeout 10m ./packaging/packages "$@"
