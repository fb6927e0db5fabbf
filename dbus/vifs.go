package dbus

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
)

// encodeVifs gives the value of the property Vifs.
func encodeVifs(vifs []netvm.Vif) []map[string]godbus.Variant {
	out := make([]map[string]godbus.Variant, len(vifs))
	for i, v := range vifs {
		addresses := make([]string, len(v.Addresses))
		for j, a := range v.Addresses {
			addresses[j] = a.String()
		}
		out[i] = map[string]godbus.Variant{
			"name": godbus.MakeVariant(v.Name), "domid": godbus.MakeVariant(uint32(v.DomID)),
			"addresses":       godbus.MakeVariant(addresses),
			"visible_address": godbus.MakeVariant(orEmpty(v.Visible)),
			"visible_gateway": godbus.MakeVariant(orEmpty(v.VisibleGateway)),
			"mac":             godbus.MakeVariant(v.MAC),
			"gateway":         godbus.MakeVariant(orEmpty(v.Gateway)), "gateway6": godbus.MakeVariant(orEmpty(v.Gateway6)),
			"metric": godbus.MakeVariant(uint32(v.Metric)), "state": godbus.MakeVariant(string(v.State)),
			"since": godbus.MakeVariant(micros(v.Since)),
		}
	}
	return out
}

func decodeVif(values map[string]godbus.Variant) (netvm.Vif, error) {
	var v netvm.Vif
	var addresses []string
	var visible, visibleGateway, gateway, gateway6, state string
	var domID, metric uint32
	var since uint64
	for name, into := range map[string]any{
		"name": &v.Name, "domid": &domID, "addresses": &addresses, "visible_address": &visible,
		"visible_gateway": &visibleGateway, "mac": &v.MAC, "gateway": &gateway, "gateway6": &gateway6,
		"metric": &metric, "state": &state, "since": &since,
	} {
		if err := take(values, name, into); err != nil {
			return v, err
		}
	}
	v.DomID, v.Metric, v.State = int(domID), int(metric), netvm.VifState(state)
	if since != 0 {
		v.Since = time.UnixMicro(int64(since))
	}
	for _, text := range addresses {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return v, fmt.Errorf("addresses: %w", err)
		}
		v.Addresses = append(v.Addresses, a)
	}
	for text, into := range map[*string]*netip.Addr{
		&visible: &v.Visible, &visibleGateway: &v.VisibleGateway, &gateway: &v.Gateway, &gateway6: &v.Gateway6,
	} {
		if *text == "" {
			continue
		}
		a, err := netip.ParseAddr(*text)
		if err != nil {
			return v, fmt.Errorf("%s: %w", v.Name, err)
		}
		*into = a
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
