package doctor

import (
	"context"
	"slices"
	"strings"
	"time"

	"netvmd/internal/dom0"
)

// placeTimeout bounds how long it is looked for what this machine is.
const placeTimeout = 5 * time.Second

// checks are those of this machine, in the order of the results: dom0's, those of a netvm, or those of a domain that is
// served by one and has nothing else of ours. What cannot be found out about it is left to the checks of a netvm to say.
func (m *machine) checks(ctx context.Context) []check {
	ctx, cancel := context.WithTimeout(ctx, placeTimeout)
	defer cancel()
	isDom0, err := dom0.IsDom0(strings.TrimSuffix(m.root, "/"))
	isDom0 = err == nil && isDom0
	isNetvm, err := m.runsNetvmd(ctx)
	isNetvm = err != nil || isNetvm
	switch {
	case isDom0 && isNetvm:
		return slices.Concat(dom0Checks, fileChecks, netvmChecks)
	case isDom0:
		return slices.Concat(dom0Checks, fileChecks)
	case !isNetvm && m.served(ctx):
		return slices.Concat(fileChecks, servedChecks)
	}
	return slices.Concat(serviceChecks, fileChecks, netvmChecks)
}

// served tells whether the toolstack says that another netvm serves this domain, or says it in a way that makes no sense.
func (m *machine) served(ctx context.Context) bool {
	specs, err := uplinkSpecs(ctx, m)
	return err != nil || len(specs) > 0
}

// dom0Checks say whether the netvm is isolated from dom0, and dom0 from the network.
var dom0Checks = []check{
	{id: "iommu", title: "IOMMU", root: true, look: judged(readIOMMU)},
	{id: "network-cards", title: "Network cards", look: judged(readPCICards)},
	{id: "interfaces", title: "Network interfaces", look: judged(readInterfaces)},
	{id: "via-netvm", title: "dom0 on the network", root: true, look: judged(readVisit)},
}

// servedChecks are for a domain in which netvmctl alone is ours.
var servedChecks = []check{uplinkCheck}

var uplinkCheck = check{id: "uplink", title: "Network from another netvm", root: true, look: judged(readLinks)}

// serviceChecks say whether netvmd is wanted here.
var serviceChecks = []check{
	{id: "service-flag", title: "Service of Qubes", look: judged(readService)},
}

// fileChecks are of what every program reads.
var fileChecks = []check{
	{id: "configuration", title: "Configuration", look: judged(readConfiguration)},
	{id: "new-configuration", title: "New default configuration", look: judged(readNewConfiguration)},
	{id: "permissions", title: "Files that root alone may write", look: judged(readPermissions)},
}

// netvmChecks are of the kernel, the firewall, the vifs, the way out, and netvmd itself.
var netvmChecks = []check{
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
	uplinkCheck,
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
