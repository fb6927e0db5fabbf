#!/bin/bash
# root.sh CACHE PACKAGE…: a root folder with this machine's own Debian release and these packages, to be booted; its path
# goes to standard output. It is made once, in CACHE, and made anew when the packages or the machine's sources change.
set -euo pipefail
cache=$1
shift

if ! command -v mmdebstrap >/dev/null; then
	echo "mmdebstrap is missing: \`make deps\`, as root, installs it" >&2
	exit 1
fi
# shellcheck source=/dev/null
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
# The files that name Debian's archive, in either of apt's formats: those of other archives name no such release.
mapfile -t sources < <(grep -lswE "^(deb .*|Suites:.*) $release( .*)?" /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} || true)
if [ ${#sources[@]} = 0 ]; then
	echo "none of apt's sources has $release" >&2
	exit 1
fi

# What this machine's apt was told about getting there and about dates holds for the root's too: NAME "VALUE";
options=()
while read -r name value; do
	options+=("--aptopt=$name $value")
done < <(apt-config dump Acquire::Check-Valid-Until Acquire::Check-Date Acquire::http::Proxy Acquire::https::Proxy | grep '"..*"')

mkdir -p "$cache"
exec {lock}>"$cache/lock"
flock "$lock"
root=$cache/root-$release-$( (printf '%s\n' "$@" && cat "${sources[@]}") | sha256sum | cut -c1-12)
if [ ! -e "$root" ]; then
	# Those of other packages, which nothing has booted for long.
	find "$cache" -maxdepth 1 -name 'root-*' -mtime +7 -exec rm -rf {} +
	rm -rf "$cache/new"
	echo "making a root of $release with mmdebstrap, once" >&2
	# With the archive's lists, so that apt can tell in there what a package needs.
	if ! mmdebstrap --mode=root --variant=minbase --skip=cleanup/apt/lists "${options[@]}" \
		--include="$(IFS=,; echo "$*")" "$release" "$cache/new" "${sources[@]}" >"$cache/log" 2>&1; then
		tail -n 20 "$cache/log" >&2
		exit 1
	fi
	mv "$cache/new" "$root"
fi
touch "$root"
echo "$root"
