package uplink

import (
	"crypto/sha1" //nolint:gosec // as RFC 9562 wants it; nothing is secured by it
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	godbus "github.com/godbus/dbus/v5"
)

// connection is a connection of NetworkManager, nm-settings-dbus(5): settings by their names, and their properties.
type connection map[string]map[string]godbus.Variant

// table is a list of things with properties, as NetworkManager's newer properties have it.
type table []map[string]godbus.Variant

// ourNames is the name space of our UUIDs (RFC 9562, version 5): each interface's connection has always the same.
var ourNames = [16]byte{0x6e, 0x65, 0x74, 0x76, 0x6d, 0x64, 0x4f, 0x1d, 0x8a, 0x2c, 0x9b, 0x37, 0x51, 0xe0, 0xc4, 0x06}

// uuidOf is the UUID of an interface's connection.
func uuidOf(name string) string {
	sum := sha1.Sum(append(ourNames[:], name...)) //nolint:gosec // see above
	sum[6], sum[8] = sum[6]&0x0f|0x50, sum[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

func connectionName(name string) string { return "netvm uplink " + name }

// connectionOf says what NetworkManager is to have for a Spec. Defaults are left out, as it does in its answers.
func connectionOf(s Spec, uuid string) connection {
	return connection{
		"connection": variants(map[string]any{
			"id": connectionName(s.Interface), "uuid": uuid, "type": "802-3-ethernet", "interface-name": s.Interface,
		}),
		"ipv4": familyOf(s, true),
		"ipv6": familyOf(s, false),
	}
}

func familyOf(s Spec, is4 bool) map[string]godbus.Variant {
	i := slices.IndexFunc(s.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == is4 })
	switch {
	case i < 0 && is4:
		return variants(map[string]any{"method": "disabled"})
	case i < 0:
		return variants(map[string]any{"method": "ignore"}) // what the kernel does by itself stays
	}
	own := s.Addresses[i]
	out := map[string]any{
		"method": "manual", "ignore-auto-dns": true,
		"address-data": table{variants(map[string]any{"address": own.Addr().String(), "prefix": uint32(own.Bits())})},
	}
	if routes := routeData(s, is4); len(routes) > 0 {
		out["route-data"] = routes
	}
	// A domain with both need not wait for IPv6, whose addresses are probed first.
	if is4 || len(s.Addresses) == 1 {
		out["may-fail"] = false
	}
	if dns := nameserversOf(s, is4); dns != nil {
		out["dns"] = dns
	}
	return variants(out)
}

// routeData are the routes that the kernel does not make by itself.
func routeData(s Spec, is4 bool) (out table) {
	for _, r := range want(s).routes {
		if r.To.Addr().Is4() != is4 {
			continue
		}
		route := map[string]any{"dest": r.To.Addr().String(), "prefix": uint32(r.To.Bits()), "metric": uint32(r.metric())}
		if r.Via.IsValid() {
			route["next-hop"], route["onlink"] = r.Via.String(), true
		}
		out = append(out, variants(route))
	}
	return out
}

// nameserversOf are the nameservers of a family in the form that every NetworkManager takes; nil = none.
func nameserversOf(s Spec, is4 bool) any {
	var v4 []uint32
	var v6 [][]byte
	for _, r := range s.Resolvers {
		if r.Is4() {
			v4 = append(v4, binary.NativeEndian.Uint32(r.AsSlice())) // as it lies in memory in network order
		} else {
			v6 = append(v6, r.AsSlice())
		}
	}
	switch {
	case !s.DNS:
		return nil
	case is4 && v4 != nil:
		return v4
	case !is4 && v6 != nil:
		return v6
	}
	return nil
}

func variants(values map[string]any) map[string]godbus.Variant {
	out := make(map[string]godbus.Variant, len(values))
	for key, value := range values {
		out[key] = godbus.MakeVariant(value)
	}
	return out
}

// ourProperties are those that count: NetworkManager's answers have others too, old forms of the same among them.
var ourProperties = map[string][]string{
	"connection": {"uuid", "type", "interface-name"},
	"ipv4":       {"method", "address-data", "route-data", "dns", "may-fail", "ignore-auto-dns"},
	"ipv6":       {"method", "address-data", "route-data", "dns", "may-fail", "ignore-auto-dns"},
}

// like tells whether a connection is as wanted, where it counts.
func (c connection) like(wanted connection) bool {
	for setting, keys := range ourProperties {
		for _, key := range keys {
			if !reflect.DeepEqual(plain(c[setting][key].Value()), plain(wanted[setting][key].Value())) {
				return false
			}
		}
	}
	return true
}

// plain makes two values comparable: those of D-Bus have variants in them, and an empty list counts as none.
func plain(value any) any {
	v := reflect.ValueOf(value)
	if !v.IsValid() || v.Kind() == reflect.Slice && v.Len() == 0 {
		return nil
	}
	list, is := value.([]map[string]godbus.Variant)
	if t, isTable := value.(table); isTable {
		list, is = t, true
	}
	if !is {
		return value
	}
	out := make([]map[string]any, len(list))
	for i, entry := range list {
		out[i] = map[string]any{}
		for key, v := range entry {
			out[i][key] = v.Value()
		}
	}
	return out
}
