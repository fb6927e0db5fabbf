#!/bin/sh
# The notices that the libraries in programs ask for.
#   licenses.sh PROGRAM...      (whole paths)
set -eu
cd "$(dirname "$0")"

notice() {
	dir=$(go list -m -f '{{.Dir}}' "$1")
	printf '\n---- %s %s\n\n' "$1" "$2"
	for license in "$dir"/LICENSE* "$dir"/COPYING*; do
		if [ ! -e "$license" ]; then
			continue
		elif grep -q 'Apache License' "$license"; then
			echo 'Apache License 2.0, as netvmd itself.'
		else
			cat "$license"
		fi
	done
	if [ -e "$dir/NOTICE" ]; then
		cat "$dir/NOTICE"
	fi
}

echo 'The programs hold these libraries, and the standard library of Go, whose license is that of golang.org/x/sys.'
held=$(go version -m "$@")
echo "$held" | awk '$1 == "dep" { print $2, $3 }' | LC_ALL=C sort -u | while read -r module version; do
	notice "$module" "$version"
done
