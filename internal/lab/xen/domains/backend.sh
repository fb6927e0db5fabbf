# shellcheck shell=bash
# What a backend domain does, dom0 or the driver domain: load its drivers, have an uplink, and say what it knows of a
# vif.

toolstack=$(echo /usr/lib/xen-*/bin)
export PATH=$PATH:$toolstack:/usr/lib/netvmd

# The addresses behind the uplink: a server, two DNS servers, and one that nothing but forged packets is sent to.
readonly server4=192.0.2.80 server6=2001:db8::80
readonly resolver=192.0.2.53 other_resolver=192.0.2.54
readonly stream_port=7
readonly bait4=192.0.2.81 bait6=2001:db8::81

prepare_backend() {
	for module in xen-privcmd xenfs xen-evtchn xen-gntdev xen-gntalloc xen-netback xen-netfront; do modprobe "$module"; done
	mount -t xenfs xenfs /proc/xen
	echo 1 >/proc/sys/net/ipv4/ip_forward
	echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
}

# add_uplink makes a network behind this domain, as a namespace at the other end of a cable, and says who resolves there.
add_uplink() {
	ip netns add outside
	ip link add eth0 type veth peer name inside netns outside
	ip addr add 192.0.2.1/24 dev eth0
	ip addr add 2001:db8::1/64 dev eth0 nodad
	ip link set eth0 up
	local address
	for address in "$server4/24" "$bait4/24" "$resolver/24" "$other_resolver/24"; do ip -n outside addr add "$address" dev inside; done
	for address in "$server6/64" "$bait6/64"; do ip -n outside addr add "$address" dev inside nodad; done
	ip -n outside link set lo up
	ip -n outside link set inside up
	ip netns exec outside nft -f - <<-END
		table inet outside {
			counter forged { }
			chain arrivals {
				type filter hook prerouting priority raw
				ip daddr $bait4 counter name forged
				ip6 daddr $bait6 counter name forged
			}
		}
	END
	for address in "$resolver" "$other_resolver"; do
		ip netns exec outside dnsmasq --conf-file=/lab/dnsmasq.conf --pid-file="/run/dnsmasq-$address.pid" \
			--listen-address="$address" --txt-record="whoami.lab,$address"
	done
	echo "nameserver $resolver" >/etc/resolv.conf
	# A server that never ends and costs little: a line ten times a second.
	ip netns exec outside nc -ll -p "$stream_port" -e /lab/stream >/dev/null 2>&1 &
}

# forged_arrivals prints how many packets for the bait came out of the uplink.
forged_arrivals() { ip netns exec outside nft list counter inet outside forged | grep -o 'packets [0-9]*' | cut -d ' ' -f 2; }

# dropped_forgeries FAMILY prints how many packets our antispoof rules of a family (ip, ip6 or arp) have dropped.
dropped_forgeries() {
	nft list counters table "$1" netvmd |
		awk '$1 == "counter" {spoofed = $2 ~ /spoofed/} $1 == "packets" && spoofed {sum += $2} END {print sum + 0}'
}

# is_up VIF ADDRESS...: the vif forwards, for these addresses and with the metric of its domain.
is_up() {
	local vif=$1 domid=${1#vif} address
	domid=${domid%.*}
	shift
	[ "$(xenstore-read "backend/vif/$domid/${vif#*.}/hotplug-status")" = connected ] || { echo "not connected"; return 1; }
	ip -o link show dev "$vif" | grep -q 'UP.* group 2 ' || { ip link show dev "$vif"; return 1; }
	for address; do
		ip "$(family "$address")" route show "$address" dev "$vif" | grep "metric $((32752 - domid))" ||
			{ ip route; ip -6 route; return 1; }
	done
}

# family ADDRESS: ip's option for it.
family() { if [[ $1 == *:* ]]; then echo -6; else echo -4; fi; }

# nothing_left VIF ADDRESS...: no trace of a vif that went.
nothing_left() {
	local vif=$1 address found=
	shift
	for address; do
		found+=$(ip "$(family "$address")" route show "$address"; ip neigh show "$address")
		found+=$(conntrack -L -s "$address" 2>/dev/null)
	done
	found+=$(nft list ruleset | grep -F "\"$vif\""; for address; do nft list ruleset | grep -wF "$address"; done)
	found+=$(ls /run/netvmd/vifs/"$vif"* 2>/dev/null)
	[ -z "$found" ] || { echo "$found"; return 1; }
}

# measure VIF: how long the hotplug program takes to bring a vif up that is not; it runs as the toolstack runs it.
measure() {
	local vif=$1 start end
	export vif XENBUS_PATH=backend/vif/${1#vif}
	XENBUS_PATH=${XENBUS_PATH/./\/}
	for _ in 1 2 3 4 5; do
		vif-route-netvm offline || return
		start=${EPOCHREALTIME/./}
		vif-route-netvm online || return
		end=${EPOCHREALTIME/./}
		echo $(((end - start) / 1000))
	done | sort -n | sed -n "3s/.*/vif-route-netvm online took & ms (median of 5, process start included, no hardware virtualisation)/p"
}

no_vifs() { ! ip link show | grep vif; }

start_netvmd() {
	netvmd --log-level debug >>/var/log/netvmd.log 2>&1 &
	echo $! >/run/netvmd.pid
}

kill_netvmd() { kill -9 "$(cat /run/netvmd.pid)"; }

# dns_targets prints where the virtual DNS addresses lead.
dns_targets() { nft list map ip netvmd dns-targets; }

# offloaded: the flowtable carries a TCP flow to the server.
offloaded() { conntrack -L -p tcp -d "$server4" | grep -F '[OFFLOAD]'; }
