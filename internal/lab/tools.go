package lab

import (
	"fmt"
	"os/exec"
	"strings"
)

// tool is a program that the lab runs, and the package that has it.
type tool struct{ name, debian, fedora string }

var tools = []tool{
	{"NetworkManager", "network-manager", "NetworkManager"},
	{"nmcli", "network-manager", "NetworkManager"},
	{"dnsmasq", "dnsmasq-base", "dnsmasq"},
	{"dbus-daemon", "dbus-daemon", "dbus-daemon"},
	{"nft", "nftables", "nftables"},
}

var backendTools = map[Backend][]tool{
	IPTablesNFT:    {{"iptables-nft", "iptables", "iptables-nft"}, {"ip6tables-nft", "iptables", "iptables-nft"}},
	IPTablesLegacy: {{"iptables-legacy", "iptables", "iptables-legacy"}, {"ip6tables-legacy", "iptables", "iptables-legacy"}},
}

// requireTools names every program that is missing and how to get it.
func requireTools(b Backend) error {
	var missing, debian, fedora []string
	for _, t := range append(tools[:len(tools):len(tools)], backendTools[b]...) {
		if _, err := exec.LookPath(t.name); err == nil {
			continue
		}
		missing = append(missing, t.name)
		debian, fedora = addOnce(debian, t.debian), addOnce(fedora, t.fedora)
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("lab: not found: %s; install with `apt-get install %s` (Debian) or `dnf install %s` (Fedora)",
		strings.Join(missing, ", "), strings.Join(debian, " "), strings.Join(fedora, " "))
}

func addOnce(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}
