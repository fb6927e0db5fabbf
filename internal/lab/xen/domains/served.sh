# shellcheck shell=sh
# What a served domain does, the AppVM or the proxy: it has its eth0 configured from XenStore, and says what became of
# that. busybox sh and bash both read it.

# connect [ADDRESS6]: waits for eth0 and has it configured. XenStore has no keys for IPv6, so that part is done here.
connect() {
	until_true "$PATIENCE" test -e /sys/class/net/eth0 || return
	netvmctl uplink up eth0 || return
	[ -n "${1-}" ] || return 0
	echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
	ip addr add "$1/128" dev eth0
	ip route add fd09:24ef:4179::a89:1 dev eth0
	ip route add default via fd09:24ef:4179::a89:1 dev eth0 onlink
}

# gone waits until eth0 is no more.
gone() { until_true "$PATIENCE" test ! -e /sys/class/net/eth0; }

# follow keeps netvmctl running, which says what it does in a file.
follow() {
	netvmctl uplink up eth0 --follow >/tmp/follow.log 2>&1 &
	echo $! >/tmp/follow.pid
}

# card prints what 90-netvm-uplink.rules knows a Xen domain's card by: its bus and its driver.
card() {
	echo "$(basename "$(readlink /sys/class/net/eth0/device/subsystem)") $(basename "$(readlink /sys/class/net/eth0/device/driver)")"
}

# routes prints the IPv4 routing table, with one space between the columns.
routes() { route -n | sed 1,2d | tr -s ' '; }

# eth0_state prints what netvmctl changes of eth0, but for the link's own state.
eth0_state() {
	cat /sys/class/net/eth0/netdev_group
	ip addr show dev eth0 | grep -w inet
	ip neigh show dev eth0
	routes
	cat /etc/resolv.conf || true
}

# received prints how many bytes came in.
received() { cat /sys/class/net/eth0/statistics/rx_bytes; }
