#!/bin/bash
# make xen: Debian's Xen with a dom0, a driver domain and AppVMs, in QEMU, with the programs of bin/ in them as they
# are. One line a check, a verdict, and its exit code. What it writes is under the user's cache folder.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
work=${XDG_CACHE_HOME:-$HOME/.cache}/netvmd/xen
log=$work/log

# Longer than the machine ever took, four times over: it hangs.
readonly limit=1500

if ! command -v apt-get >/dev/null; then
	echo "make xen needs Debian: it unpacks Debian's Xen and kernel" >&2
	exit 1
fi
mkdir -p "$work"
# Two runs would build each other's images.
exec {lock}>"$work/lock"
flock -n "$lock" || { echo "make xen: another one runs" >&2; exit 1; }

"$here/fetch.sh" "$work"
"$here/images.sh" "$work" "$(realpath "$here/../../../bin")"
echo "the machine is up in a few seconds; its log is $log"

# Follows the machine's console: everything goes to the log, each line with the seconds since the start, and the
# checks to the terminal. The last one that it prints is the verdict.
follow() {
	local start=$EPOCHREALTIME now tenths line verdict='no verdict: see the log'
	while IFS= read -r line; do
		now=$EPOCHREALTIME
		tenths=$(((${now/./} - ${start/./}) / 100000))
		line=$(printf '%4d.%d  %s' $((tenths / 10)) $((tenths % 10)) "${line%$'\r'}")
		echo "$line" >>"$log"
		case $line in
		*'  CHECK '*) echo "${line/CHECK /}" ;;
		*'  VERDICT '*) verdict=${line#*VERDICT } ;;
		esac
	done
	echo "$verdict"
	[[ $verdict == passed:* ]]
}

: >"$log"
# Without hardware virtualisation, so that it runs in a virtual machine too and is the same everywhere. One CPU
# for Xen: the second one of a small machine is for QEMU's own threads.
timeout --foreground -k 5 "$limit" qemu-system-x86_64 -accel tcg,thread=multi -machine pc -cpu qemu64 -m 1792 -smp 1 \
	-nodefaults -no-user-config -display none -no-reboot -monitor none -serial stdio -kernel "$work/xen" \
	-append "console=com1 com1=115200 dom0_mem=896M,max:896M dom0_max_vcpus=1 loglvl=info guest_loglvl=warning spec-ctrl=no xpti=no" \
	-initrd "$work/vmlinux console=hvc0 rdinit=/init mitigations=off loglevel=4 panic=5,$work/dom0.cpio" </dev/null 2>&1 |
	follow
