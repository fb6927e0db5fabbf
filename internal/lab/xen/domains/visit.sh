# shellcheck shell=bash
# Part of the story: dom0 is on the network for a while, through the netvm, and the other domains stand paused.

# What qvm-dom0-network-via-netvm gives dom0 unless told otherwise.
readonly visitor4=10.137.255.254

dom0_visits() {
	local before
	chapter "dom0 visits the network, through the driver domain"
	stop_being_a_backend
	before=$(dom0_state)
	check "qvm-dom0-network-via-netvm up" visit up || return
	check "dom0's IPv4 routing table is one default route" prints_only "$one_route" routes
	check "dom0 pings the world" ping -c 1 -W 5 "$server4"
	check "dom0 resolves a name through the netvm" prints "$server4" nslookup -type=a server.lab
	check "the proxy and the AppVM stand paused" prints_only "proxy work" names_of paused
	check "dom0 and the netvm do not" prints_only "Domain-0 netvm" names_of running
	check "a second up is refused" fails_with "up already" visit up
	check "qvm-dom0-network-via-netvm down" visit down
	check "everything is as before" is_as_before "$before"
	crashes "$before"
	check "the proxy and the AppVM go on" until_true "$PATIENCE" chain_asks "$other_resolver"
}

# stop_being_a_backend: dom0 is without a network, as it is on a machine with a netvm.
stop_being_a_backend() {
	kill_netvmd
	ip link del eth0
	nft flush ruleset
	rm -rf /run/netvmd /var/lib/netvmd /etc/netvmd/netvmd.toml
	xenstore-rm qubes_netvm_gateway qubes_netvm_secondary_dns
}

# visit up|down
visit() {
	case $1 in
	up) timeout "$PATIENCE" qvm-dom0-network-via-netvm up --netvm netvm ;;
	*) timeout "$PATIENCE" qvm-dom0-network-via-netvm "$1" ;;
	esac
}

# names_of paused|running: the domains in that state, in the order of their ids.
names_of() { domain_states | awk -v state="$1" '$2 == state {printf "%s%s", sep, $1; sep = " "}'; }

# domain_states prints a line `NAME paused` or `NAME running` for each domain.
domain_states() { xl list | awk 'NR > 1 {print $1, ($5 ~ /p/ ? "paused" : "running")}'; }

# dom0_state prints all of dom0 that a visit changes.
dom0_state() {
	domain_states
	xenstore-ls /local/domain/0
	ip addr
	ip route
	ip -6 route
	ip neigh
	cat /etc/resolv.conf
	find /run/netvmd /var/lib/netvmd -type f ! -name '*lock' 2>/dev/null
}

is_as_before() {
	prints_only "$1" dom0_state && on netvm "nothing_left vif0 $visitor4"
}

# crashes BEFORE: up is killed after its first step, then after its second, and so on until it comes to its end; and once
# while xl is at work for it.
crashes() {
	local before=$1 step=2 said
	while said=$(dies_at "$step" "${slowly[@]}"); do
		check "killed before it did what it said, \"$said\": down puts all back" reverts "$before"
		step=$((step + 1))
	done
	check "there was more than one step of each kind" [ "$step" -gt 6 ]
	check "down after it came to its end puts all back" reverts "$before"
	said=$(dies_at 3)
	check "killed while it did what it said, \"$said\": another up is refused" fails_with "up already, or was not ended" visit up
	check "down puts all back" reverts "$before"
}

reverts() { visit down && is_as_before "$1"; }

# Each fsync takes 0.3 s: with it a line of the journal ends, after a step was said and before it is taken.
readonly slowly=(strace -D -f -qq -o /dev/null --seccomp-bpf -e trace=fsync -e inject=fsync:delay_enter=300000)

# dies_at STEP [TRACER...]: starts up and kills it as soon as it has said what its STEPth step is, which is printed. It
# fails if up came to its end before.
dies_at() {
	local step=$1 line pid out
	shift
	coproc UP { exec "$@" qvm-dom0-network-via-netvm up --netvm netvm 2>&1; }
	pid=$UP_PID out=${UP[0]}
	for _ in $(seq "$step"); do
		IFS= read -r -t "$PATIENCE" -u "$out" line || break
	done
	kill -9 "$pid" 2>/dev/null
	echo "$line"
	wait "$pid"
	[ $? = 137 ]
}
