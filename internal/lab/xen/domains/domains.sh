# shellcheck shell=bash
# Domains, as the story in dom0 sees them: made with xl, told what to do over their consoles.

readonly console_logs=/var/log/xen/console
declare -A console

start_toolstack() {
	xenstored --pid-file /run/xenstored.pid
	xen-init-dom0
	xenconsoled --pid-file=/run/xenconsoled.pid --log=guest --log-dir="$console_logs"
}

# domain NAME IMAGE MEMORY [LINE]: writes the configuration of a domain, with a line of the caller's.
domain() {
	cat >"/tmp/$1.cfg" <<-END
		name = "$1"
		type = "pv"
		kernel = "/lab/vmlinux"
		ramdisk = "/lab/$2.cpio"
		extra = "console=hvc0 rdinit=/init mitigations=off quiet"
		memory = $3
		vcpus = 1
		on_crash = "destroy"
		${4-}
	END
}

# create NAME: creates the domain that `domain` described.
create() { timeout "$PATIENCE" xl create "/tmp/$1.cfg"; }

# tell DOMAIN KEY VALUE...: what the toolstack has to say to a domain, in its part of XenStore.
tell() {
	local home
	home=/local/domain/$(xl domid "${1/dom0/Domain-0}")
	shift
	while [ $# -gt 0 ]; do
		xenstore-write "$home/$1" "$2"
		shift 2
	done
}

# is_netvm DOMAIN NET: the domain serves others, which have NET.1 and NET.254 as their nameservers.
is_netvm() { tell "$1" qubes_netvm_gateway "$2.1" qubes_netvm_secondary_dns "$2.254"; }

# is_served DOMAIN NET HOST: the domain has the address NET.HOST with a netvm that serves NET.
is_served() { tell "$1" qubes_ip "$2.$3" qubes_netmask 255.255.255.0 qubes_gateway "$2.1" qubes_secondary_dns "$2.254"; }

# What `routes` prints in a served domain.
readonly one_route='0.0.0.0 0.0.0.0 0.0.0.0 U 0 0 0 eth0'

# open_console NAME: from now on the domain does what `on` says.
open_console() {
	local tty fd
	tty=$(xenstore-read "/local/domain/$(xl domid "$1")/console/tty") || return
	exec {fd}<>"$tty"
	console[$1]=$fd
	on "$1" true
}

# on DOMAIN COMMAND: runs a shell's command there. What it prints and its exit code are those of the command.
on() {
	if [ "$1" = dom0 ]; then
		(eval "$2") </dev/null
		return
	fi
	local fd=${console[$1]} tag=@$SRANDOM line
	echo "$tag $2" >&"$fd"
	while IFS= read -r -t $((2 * PATIENCE)) -u "$fd" line; do
		line=${line%$'\r'}
		case $line in
		"$tag | "*) echo "${line#"$tag | "}" ;;
		"$tag = "*) return "${line#"$tag = "}" ;;
		esac
	done
	echo "$1: no answer to: $2" >&2
	return 1
}

# vif_of NAME: the backend end of the domain's network card.
vif_of() { echo "vif$(xl domid "$1").0"; }
