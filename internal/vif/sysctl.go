package vif

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sysctlRoot is where the kernel's settings of the network are; each network namespace sees its own.
const sysctlRoot = "/proc/sys/net"

// setting is a file below sysctlRoot, in which % stands for the vif.
type setting struct{ path, value string }

// settings4 are those of every vif: the AppVM does not steer our routing. Its default route has no gateway, so that it asks
// ARP for every destination. It gets an answer for the gateway's address, which is on the vif, and for what we would
// forward elsewhere (proxy_arp; never what leads back to the same vif: Linux, arp_fwd_proxy), at once (proxy_delay), not for
// other addresses of ours (arp_ignore). The kernel remembers who asked, and iptables does not see ARP: so it must answer
// only if the route to who asks leads back to the vif (arp_filter for the gateway's, rp_filter for the others).
var settings4 = []setting{
	{"ipv4/conf/%/forwarding", "1"},
	{"ipv4/conf/%/accept_redirects", "0"},
	{"ipv4/conf/%/send_redirects", "0"},
	{"ipv4/conf/%/accept_source_route", "0"},
	{"ipv4/conf/%/accept_local", "0"},
	{"ipv4/conf/%/route_localnet", "0"},
	{"ipv4/conf/%/proxy_arp", "1"},
	{"ipv4/neigh/%/proxy_delay", "0"},
	{"ipv4/conf/%/arp_ignore", "1"},
	{"ipv4/conf/%/arp_filter", "1"},
	{"ipv4/conf/%/rp_filter", "1"},
}

// settings6 are those of a vif with IPv6: its addresses are the ones that we give it, and it believes no router.
var settings6 = []setting{
	{"ipv6/conf/%/disable_ipv6", "0"},
	{"ipv6/conf/%/forwarding", "1"},
	{"ipv6/conf/%/addr_gen_mode", "1"}, // no link-local address: one less of ours that the AppVM could reach
	{"ipv6/conf/%/accept_ra", "0"},
	{"ipv6/conf/%/autoconf", "0"},
	{"ipv6/conf/%/accept_redirects", "0"},
	{"ipv6/conf/%/accept_source_route", "-1"},
	{"ipv6/conf/%/accept_dad", "0"},
	{"ipv6/conf/%/proxy_ndp", "0"},
}

// strict4 and strict6 are added by vif.harden: what they turn away no AppVM in its right mind sends, and the antispoof
// rules stop most of it already.
var (
	strict4 = []setting{
		{"ipv4/conf/%/arp_announce", "2"},
		{"ipv4/conf/%/drop_gratuitous_arp", "1"},
		{"ipv4/conf/%/drop_unicast_in_l2_multicast", "1"},
		{"ipv4/conf/%/shared_media", "0"},
		{"ipv4/conf/%/secure_redirects", "0"},
		{"ipv4/conf/%/bootp_relay", "0"},
	}
	strict6 = []setting{
		{"ipv6/conf/%/drop_unsolicited_na", "1"},
		{"ipv6/conf/%/drop_unicast_in_l2_multicast", "1"},
		{"ipv6/conf/%/max_addresses", "1"},
	}
)

// hasIPv6 tells whether the kernel has IPv6 on that device.
func hasIPv6(name string) bool {
	_, err := os.Stat(filepath.Join(sysctlRoot, "ipv6/conf", name))
	return err == nil
}

// writeSettings sets the vif's sysctls, before it is up. Without an IPv6 address the vif gets no IPv6 at all.
func writeSettings(s Spec) error {
	list := settings4
	if s.Harden {
		list = append(list[:len(list):len(list)], strict4...)
	}
	switch {
	case s.hasIPv6():
		if !hasIPv6(s.Name) {
			return errors.New("the AppVM has an IPv6 address, and this kernel has no IPv6: boot without ipv6.disable=1, or leave vif.gateway6 empty")
		}
		list = append(list[:len(list):len(list)], settings6...)
		if s.Harden {
			list = append(list[:len(list):len(list)], strict6...)
		}
	case hasIPv6(s.Name):
		list = append(list[:len(list):len(list)], setting{"ipv6/conf/%/disable_ipv6", "1"})
	}
	for _, one := range list {
		if err := writeSetting(strings.ReplaceAll(one.path, "%", s.Name), one.value); err != nil {
			return err
		}
	}
	return nil
}

// forward makes the netvm a router, as far as it is none yet.
func forward(s Spec) error {
	paths := []string{"ipv4/ip_forward"}
	if s.hasIPv6() {
		paths = append(paths, "ipv6/conf/all/forwarding")
	}
	for _, path := range paths {
		// Writing is more than a flag: the kernel goes through all devices.
		if text, err := os.ReadFile(filepath.Join(sysctlRoot, path)); err == nil && strings.TrimSpace(string(text)) == "1" {
			continue
		}
		if err := writeSetting(path, "1"); err != nil {
			return err
		}
	}
	return nil
}

// writeSetting sets one sysctl. An older kernel may lack it: then it has not what the sysctl would turn off.
func writeSetting(path, value string) error {
	err := os.WriteFile(filepath.Join(sysctlRoot, path), []byte(value), 0o644)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set sysctl net/%s to %s: %w", path, value, err)
	}
	return nil
}
