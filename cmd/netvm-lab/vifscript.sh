# What vif-route-netvm does to the kernel, by the plain tools: for the benchmark alone. It reads no store, checks
# nothing and keeps no record. Arguments: online or offline, the MAC, the metric, the addresses.
command=$1 mac=$2 metric=$3
set -- $4
v4=$1 v6=$2

for address in "$v4" "$v6"; do
	conntrack -D -s "$address" >/dev/null 2>&1 || true
	conntrack -D -r "$address" >/dev/null 2>&1 || true
done
elements="element ip netvmd allowed { $vif . $v4 }
ACTION element ip netvmd downstream { $v4 }
ACTION element arp netvmd allowed { $vif . $v4 }
ACTION element ip6 netvmd allowed { $vif . $v6 }
ACTION element ip6 netvmd downstream { $v6 }"
if [ "$command" = offline ]; then
	echo "ACTION $elements" | sed 's/ACTION/delete/' | nft -f -
	exit
fi
set --
for one in forwarding=1 accept_redirects=0 send_redirects=0 accept_source_route=0 accept_local=0 route_localnet=0 proxy_arp=0 arp_ignore=1; do
	set -- "$@" "net/ipv4/conf/$vif/$one"
done
for one in disable_ipv6=0 forwarding=1 accept_ra=0 autoconf=0 accept_redirects=0 accept_source_route=-1 accept_dad=0 proxy_ndp=0; do
	set -- "$@" "net/ipv6/conf/$vif/$one"
done
sysctl -q -w "$@"
ip neighbour replace "$v4" dev "$vif" lladdr "$mac" nud permanent
ip neighbour replace "$v6" dev "$vif" lladdr "$mac" nud permanent
echo "ACTION $elements" | sed 's/ACTION/add/' | nft -f -
ip link set "$vif" group 2 up
ip route add "$v4" dev "$vif" scope link metric "$metric"
ip route add "$v6" dev "$vif" metric "$metric"
ip address add 10.137.0.6/32 dev "$vif"
ip address add fd09:24ef:4179::a89:6/128 dev "$vif" nodad
