package dbus

import (
	"fmt"
	"net/netip"
	"slices"

	"netvmd/internal/netvm"
)

func encodeVif(v netvm.Vif) dict {
	return variants(map[string]any{
		"name": v.Name, "domid": uint32(v.DomID), "addresses": each(v.Addresses, netip.Addr.String),
		"visible_address": orEmpty(v.Visible), "visible_gateway": orEmpty(v.VisibleGateway), "mac": v.MAC,
		"gateway": orEmpty(v.Gateway), "gateway6": orEmpty(v.Gateway6), "metric": uint32(v.Metric),
		"state": string(v.State), "since": micros(v.Since),
	})
}

func decodeVif(values dict) (netvm.Vif, error) {
	var v netvm.Vif
	var addresses []string
	var visible, visibleGateway, gateway, gateway6, state string
	var domID, metric uint32
	var since uint64
	err := take(values, map[string]any{
		"name": &v.Name, "domid": &domID, "addresses": &addresses, "visible_address": &visible,
		"visible_gateway": &visibleGateway, "mac": &v.MAC, "gateway": &gateway, "gateway6": &gateway6,
		"metric": &metric, "state": &state, "since": &since,
	})
	if err != nil {
		return v, err
	}
	v.DomID, v.Metric, v.State = int(domID), int(metric), netvm.VifState(state)
	if v.Since, err = moment(since); err != nil {
		return v, fmt.Errorf("%s: since: %w", v.Name, err)
	}
	if v.Addresses, err = parseEach(addresses, netip.ParseAddr); err != nil {
		return v, fmt.Errorf("%s: addresses: %w", v.Name, err)
	}
	for _, member := range []struct {
		name, text string
		into       *netip.Addr
	}{
		{"visible_address", visible, &v.Visible}, {"visible_gateway", visibleGateway, &v.VisibleGateway},
		{"gateway", gateway, &v.Gateway}, {"gateway6", gateway6, &v.Gateway6},
	} {
		if *member.into, err = parseOrNone(member.text); err != nil {
			return v, fmt.Errorf("%s: %s: %w", v.Name, member.name, err)
		}
	}
	return v, nil
}

// movedVifs lists the names of the vifs that went from one list to the other, and of those that came. One that came again
// under the same name went and came.
func movedVifs(before, now []netvm.Vif) (went, came []string) {
	missing := func(from, in []netvm.Vif) (names []string) {
		for _, v := range from {
			if !slices.ContainsFunc(in, func(o netvm.Vif) bool { return o.Name == v.Name && o.Since.Equal(v.Since) }) {
				names = append(names, v.Name)
			}
		}
		return names
	}
	return missing(before, now), missing(now, before)
}
