package uplink

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

const (
	resolvedPath = godbus.ObjectPath("/org/freedesktop/resolve1")
	// resolvedLink and resolvedRoot are the interfaces of org.freedesktop.resolve1(5).
	resolvedRoot = resolved + ".Manager"
	resolvedLink = resolved + ".Link"
)

// everyDomain has all queries go to the device's nameservers.
var everyDomain = []linkDomain{{".", true}}

// linkServer is a nameserver, as resolve1's SetLinkDNS and the property DNS of a link have it.
type linkServer struct {
	Family  int32
	Address []byte
}

// linkDomain is a domain, as resolve1's SetLinkDomains and the property Domains of a link have it.
type linkDomain struct {
	Name  string
	Route bool // it only says where queries go, and is no search domain
}

func linkServers(resolvers []netip.Addr) []linkServer {
	out := make([]linkServer, len(resolvers))
	for i, r := range resolvers {
		out[i] = linkServer{unix.AF_INET, r.AsSlice()}
		if r.Is6() {
			out[i].Family = unix.AF_INET6
		}
	}
	return out
}

// tellResolved has systemd-resolved ask these nameservers for everything, over the device.
func tellResolved(ctx context.Context, b *bus, index int, resolvers []netip.Addr) (changes []string, err error) {
	var path godbus.ObjectPath
	if err := b.ask(ctx, resolved, resolvedPath, resolvedRoot+".GetLink", []any{int32(index)}, &path); err != nil {
		return nil, err
	}
	servers, err := property[[]linkServer](ctx, b, resolved, path, resolvedLink, "DNS")
	if err != nil {
		return nil, err
	}
	domains, err := property[[]linkDomain](ctx, b, resolved, path, resolvedLink, "Domains")
	if err != nil {
		return nil, err
	}
	byDefault, err := property[bool](ctx, b, resolved, path, resolvedLink, "DefaultRoute")
	if err != nil {
		return nil, err
	}
	want := linkServers(resolvers)
	for _, step := range []struct {
		met    bool
		method string
		value  any
		done   string
	}{
		{reflect.DeepEqual(servers, want), "SetLinkDNS", want, fmt.Sprintf("systemd-resolved asks %s", join(resolvers))},
		{reflect.DeepEqual(domains, everyDomain), "SetLinkDomains", everyDomain, "systemd-resolved asks them for every domain"},
		{byDefault, "SetLinkDefaultRoute", true, "systemd-resolved asks them by default"},
	} {
		if step.met {
			continue
		}
		if err := b.ask(ctx, resolved, resolvedPath, resolvedRoot+"."+step.method, []any{int32(index), step.value}); err != nil {
			return changes, err
		}
		changes = append(changes, step.done)
	}
	return changes, nil
}

// forgetResolved has systemd-resolved forget what it was told of a device; one that is gone it has forgotten.
func forgetResolved(ctx context.Context, b *bus, index int) (changes []string, err error) {
	err = b.ask(ctx, resolved, resolvedPath, resolvedRoot+".RevertLink", []any{int32(index)})
	if isError(err, resolved+".NoSuchLink") {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []string{"systemd-resolved forgot the interface"}, nil
}
