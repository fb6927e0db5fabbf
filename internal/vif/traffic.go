package vif

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"

	"netvmd/internal/netvm"
	"netvmd/internal/rtnetlink"
)

// Traffic lists what passed each vif of the calling thread's network namespace since its device was made, ordered by
// domain and device. Where an AppVM's address is hidden, the outer end of the pair of devices has the vif's name and
// counts the same packets in the same direction.
func Traffic() ([]netvm.Traffic, error) {
	k, err := openKernel()
	if err != nil {
		return nil, fmt.Errorf("traffic of vifs: %w", err)
	}
	defer k.Close()
	links, err := rtnetlink.Whole(k.LinkList)
	if err != nil {
		return nil, fmt.Errorf("traffic of vifs: list the devices: %w", err)
	}
	var out []netvm.Traffic
	for _, link := range links {
		if t, is := trafficOf(link.Attrs()); is {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b netvm.Traffic) int { return byAge(a.Vif, b.Vif) })
	return out, nil
}

// trafficOf is false for a device that is no vif.
func trafficOf(at *netlink.LinkAttrs) (netvm.Traffic, bool) {
	_, _, err := ParseName(at.Name)
	if err != nil || at.Statistics == nil {
		return netvm.Traffic{}, false
	}
	s := at.Statistics
	return netvm.Traffic{Vif: at.Name, RxBytes: s.RxBytes, RxPackets: s.RxPackets, TxBytes: s.TxBytes, TxPackets: s.TxPackets}, true
}
