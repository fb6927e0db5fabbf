package doctor

// checks are all, in the order of the results: whether netvmd is wanted here, what is configured, the kernel, the firewall, the vifs, the way out,
// and netvmd itself.
var checks = []check{
	{id: "service-flag", title: "Service of Qubes", look: judged(readService)},
	{id: "configuration", title: "Configuration", look: judged(readConfiguration)},
	{id: "new-configuration", title: "New default configuration", look: judged(readNewConfiguration)},
	{id: "permissions", title: "Files that root alone may write", look: judged(readPermissions)},
	{id: "store", title: "Settings from the toolstack", root: true, look: judged(readStore)},
	{id: "xenstore", title: "XenStore", root: true, look: judged(readXenStore)},

	{id: "kernel-rules", title: "What the rules need of the kernel", root: true, look: judged(readKernelRules)},
	{id: "flowtable", title: "Short way for established flows", root: true, look: judged(readFlowtable)},
	{id: "conntrack", title: "Flows can be listed and forgotten", root: true, look: judged(readConntrack)},
	{id: "forwarding", title: "Forwarding", look: judged(readForwarding)},
	{id: "reverse-path", title: "Reverse path filter", look: judged(readReversePath)},
	{id: "icmp-limit", title: "Refusals are not held back", look: judged(readLimits)},

	{id: "firewall", title: "Firewall's rules", root: true, look: judged(readFirewall)},
	{id: "base", title: "Base firewall", root: true, look: judged(readBase)},
	{id: "dns", title: "AppVM DNS", look: judged(readDNS)},
	{id: "qubes-dns", title: "DNS rules of Qubes", root: true, look: judged(readQubesDNS)},
	{id: "servers", title: "No DNS or DHCP server", look: judged(readServers)},
	{id: "ports", title: "Ports are closed to AppVMs", root: true, look: judged(readPorts)},

	{id: "vifs", title: "vifs are as recorded", root: true, look: judged(readVifs)},
	{id: "hotplug", title: "Xen's hotplug script", look: judged(readHotplug)},
	{id: "qubes-hotplug", title: "Hotplug script of Qubes", look: judged(readQubesHotplug)},
	{id: "qubes-hooks", title: "DNS scripts of Qubes", look: judged(readQubesHooks)},

	{id: "bus", title: "System bus", look: judged(readBus)},
	{id: "networkmanager", title: "NetworkManager", look: judged(readNetworkManager)},
	{id: "internet", title: "Way to the Internet", look: judged(readInternet)},
	{id: "networkmanager-vifs", title: "NetworkManager leaves vifs alone", look: judged(readManaged)},
	{id: "resolved", title: "systemd-resolved", look: judged(readResolved)},

	{id: "netvmd", title: "netvmd", look: judged(readDaemon)},
	{id: "problems", title: "What netvmd complains of", look: judged(readProblems)},
	{id: "units", title: "Start at boot", look: judged(readUnits)},
	{id: "bus-policy", title: "Bus policy", look: judged(readBusPolicy)},
	{id: "polkit", title: "Rights beside root's", look: judged(readPolkit)},
}
