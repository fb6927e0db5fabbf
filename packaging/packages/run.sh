#!/bin/bash
# make test-packages: the packages in a Debian that is booted with systemd. Two versions are built, and the tests of this
# folder tell what becomes of a netvm that they are installed in, upgraded, and removed from. Those of formats look at the
# files.
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
	systemd-sysv dbus network-manager nftables iproute2 udev polkitd rpm pacman-package-manager)
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
# make_quietly TARGET VARIABLE=VALUE…: the log is shown if it fails.
make_quietly() { make --no-print-directory BIN="$built/bin" "$@" >"$built/log" 2>&1 || { cat "$built/log" >&2; exit 1; }; }
for version in 0.9.1 0.9.2; do
	make_quietly packages VERSION=$version DIST="$built/$version"
done
# One more that differs from the last by a default in the configuration.
cp --archive "$built/bin/root" "$built/other"
echo '# Another default.' >>"$built/other/netvmd/etc/netvmd/netvmd.toml"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) packaging/nfpm/build.sh "$built/other" "$built/0.9.3" 0.9.3 'nobody <nobody@localhost>' >/dev/null
NETVMD_TEST_ROOT=$root NETVMD_TEST_PACKAGES=$built \
	go test -race -tags packages -count=1 -p 1 -v -timeout 20m ./packaging/packages ./packaging/formats "$@" |
	grep --line-buffered -v '^=== '
