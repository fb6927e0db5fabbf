# What netvmctl uplink does to the kernel and to resolv.conf, by the plain tools, one process after the other: for the
# benchmark alone. It reads no store, checks nothing and keeps no record. Arguments: up or down, address, gateway, IPv6
# address, IPv6 gateway, nameservers.
command=$1 v4=$2 gateway4=$3 v6=$4 gateway6=$5 dns1=$6 dns2=$7

if [ "$command" = down ]; then
	ip link set eth0 down
	ip address flush dev eth0
	ip link set eth0 group 0
	mv /etc/resolv.conf.saved /etc/resolv.conf
	exit
fi
ip link set eth0 group 1
sysctl -q -w net.ipv6.conf.eth0.disable_ipv6=0 net.ipv6.conf.eth0.accept_ra=0
ip address replace "$v4/32" dev eth0
ip address replace "$v6/128" dev eth0 nodad
for neighbour in "$gateway4" "$dns1" "$dns2" "$gateway6"; do
	ip neighbour replace "$neighbour" dev eth0 lladdr fe:ff:ff:ff:ff:ff nud permanent
done
ip link set eth0 up
ip route replace default dev eth0 scope link
ip route replace default via "$gateway6" dev eth0 onlink
cp -a /etc/resolv.conf /etc/resolv.conf.saved
printf 'nameserver %s\nnameserver %s\n' "$dns1" "$dns2" >/etc/resolv.conf.new
mv /etc/resolv.conf.new /etc/resolv.conf
