package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	godbus "github.com/godbus/dbus/v5"
)

const (
	nmName = "org.freedesktop.NetworkManager"
	nmPath = godbus.ObjectPath("/org/freedesktop/NetworkManager")
)

// SetResolvers gives an active device these IPv4 resolvers instead of those of DHCP, at run time, by what
// `nmcli device modify` does: one Reapply call, so a benchmark does not pay for a process with each change.
func (d *Domain) SetResolvers(ctx context.Context, device string, resolvers ...netip.Addr) error {
	conn, err := d.Bus()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // every call was answered
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	var path godbus.ObjectPath
	if err := conn.Object(nmName, nmPath).CallWithContext(ctx, nmName+".GetDeviceByIpIface", 0, device).Store(&path); err != nil {
		return fmt.Errorf("NetworkManager: find device %s: %w", device, err)
	}
	object := conn.Object(nmName, path)
	var settings map[string]map[string]godbus.Variant
	var version uint64
	err = object.CallWithContext(ctx, nmName+".Device.GetAppliedConnection", 0, uint32(0)).Store(&settings, &version)
	if err != nil {
		return fmt.Errorf("NetworkManager: %s: read the applied connection: %w", device, err)
	}
	servers := make([]uint32, len(resolvers))
	for i, r := range resolvers {
		// NetworkManager's "dns": the address in network byte order, read as a native number.
		servers[i] = binary.NativeEndian.Uint32(r.AsSlice())
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		// The older forms of "address-data" and "route-data", whose structs would not come back as they were.
		delete(settings[family], "addresses")
		delete(settings[family], "routes")
	}
	ipv4 := settings["ipv4"]
	delete(ipv4, "dns-data") // the newer form, which would take precedence
	ipv4["dns"] = godbus.MakeVariant(servers)
	ipv4["ignore-auto-dns"] = godbus.MakeVariant(true)
	err = object.CallWithContext(ctx, nmName+".Device.Reapply", 0, settings, version, uint32(0)).Err
	if err != nil {
		return fmt.Errorf("NetworkManager: %s: reapply with resolvers %v: %w", device, resolvers, err)
	}
	return nil
}
