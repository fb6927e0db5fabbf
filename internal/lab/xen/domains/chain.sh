# shellcheck shell=bash
# Part of the story: netvm <- proxy <- AppVM, each a domain. The proxy runs netvmd without NetworkManager; its uplink is
# its eth0, which netvmctl configures.

# The first three numbers of the addresses that the proxy gives out, and the proxy's own address.
readonly proxy_net=10.138.0 proxy4=10.137.0.6

proxy_as_backend() {
	local targets vif
	chapter "A chain: the AppVM behind a proxy, the proxy behind the driver domain"
	on netvm start_netvmd
	starts_proxy || return
	domain work appvm 144 "$(vif_line proxy 20 "$proxy_net.5")"
	check "xl create of an AppVM behind the proxy" create work || return
	open_console work
	vif=$(vif_of work)
	check "$vif is up in the proxy, in group 2, with its routes" until_true "$PATIENCE" on proxy "is_up $vif $proxy_net.5" || return
	on proxy start_netvmd
	is_served work "$proxy_net" 5
	check "netvmctl configures the AppVM's eth0 from XenStore" on work connect
	check "its IPv4 routing table is one default route" prints_only "$one_route" on work routes
	check "the AppVM pings its gateway" on work "ping -c 1 -W 5 $proxy_net.1"
	check "the AppVM pings the world" on work "ping -c 1 -W 5 $server4"
	check "both nameservers answer, through two levels" until_true "$PATIENCE" chain_asks "$resolver"
	check "a name resolves through resolv.conf" prints "$server4" on work "nslookup -type=a server.lab"
	drops proxy ip arp

	targets=$(on proxy dns_targets)
	on netvm "echo nameserver $other_resolver >/etc/resolv.conf"
	check "the netvm gets another resolver, and the AppVM's next queries go there" \
		until_true "$PATIENCE" chain_asks "$other_resolver"
	check "nothing changed in the proxy for that" prints_only "$targets" on proxy dns_targets
	on netvm kill_netvmd
	check "DNS goes on after netvmd was killed in the netvm" chain_asks "$other_resolver"
	on proxy kill_netvmd
	check "DNS goes on after netvmd was killed in the proxy too" chain_asks "$other_resolver"
}

# starts_proxy: the proxy is there, on the network, and serves.
starts_proxy() {
	local vif
	domain proxy driver 288 "driver_domain = 1
$(vif_line netvm 10 "$proxy4")"
	check "xl create of the proxy" create proxy || return
	open_console proxy
	check "netvmctl loads the base firewall in the proxy, before anybody is there" until_true "$PATIENCE" on proxy "netvmctl firewall load"
	vif=$(vif_of proxy)
	check "$vif is up, in group 2, with its routes" until_true "$PATIENCE" on netvm "is_up $vif $proxy4" || return
	is_served proxy "$net" 6
	is_netvm proxy "$proxy_net"
	check "netvmctl configures the proxy's eth0 from XenStore" on proxy connect
}

# chain_asks RESOLVER: asked through either of its nameservers, it answers the AppVM.
chain_asks() {
	local said
	said=$(on work "netvm-lab ask $proxy_net.1 $proxy_net.254")
	[ "$(grep -c "$1 answers" <<<"$said")" = 2 ] || { echo "$said"; return 1; }
}
