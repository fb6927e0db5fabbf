package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Settings are the netvm's own settings, as its toolstack gives them.
type Settings struct {
	Virtual  []netip.Addr // virtual DNS addresses, IPv4; empty = the store names none
	Gateway  netip.Addr   // of the vifs, IPv4; the zero Addr = the store names none
	Gateway6 netip.Addr   // of the vifs, IPv6; the zero Addr = AppVMs have no IPv6

	// PassThrough: this netvm's own uplink is served by another netvm.
	PassThrough bool
	// Resolvers are what that netvm gives this one as nameservers, in order; NextGateway is its address towards this one,
	// IPv4. Both are empty unless PassThrough.
	Resolvers   []netip.Addr
	NextGateway netip.Addr
	// Harden: vifs are to get strict sysctls.
	Harden bool
}

func (s Settings) equal(o Settings) bool {
	return slices.Equal(s.Virtual, o.Virtual) && s.Gateway == o.Gateway && s.Gateway6 == o.Gateway6 &&
		slices.Equal(s.Resolvers, o.Resolvers) && s.NextGateway == o.NextGateway && s.PassThrough == o.PassThrough && s.Harden == o.Harden
}

// attributes are what the settings say, for a line of the log.
func (s Settings) attributes() []any {
	out := []any{"virtual", s.Virtual}
	if s.Gateway.IsValid() {
		out = append(out, "gateway", s.Gateway)
	}
	if s.Gateway6.IsValid() {
		out = append(out, "gateway6", s.Gateway6)
	}
	if len(s.Resolvers) > 0 {
		out = append(out, "resolvers", s.Resolvers)
	}
	return append(out, "pass_through", s.PassThrough, "harden", s.Harden)
}

// Mapping hides the address of one AppVM from it.
type Mapping struct {
	Visible        netip.Addr // what the AppVM has for its address
	VisibleGateway netip.Addr // what it has for its gateway; the zero Addr = the store names none
}

// ValueErrors are values of the store that make no sense, an error each.
type ValueErrors []error

func (v ValueErrors) Error() string {
	words := make([]string, len(v))
	for i, err := range v {
		words[i] = err.Error()
	}
	return strings.Join(words, "; ")
}

// Unwrap returns the faults.
func (v ValueErrors) Unwrap() []error { return v }

// hardenService is the Qubes service that asks for strict sysctls.
const hardenService = "harden-network-interfaces"

// Settings reads the settings. Keys that are missing or empty are fine. Where values make no sense the error is
// ValueErrors, which names the keys and the values, and nothing is returned of the rest.
func (s *Store) Settings(ctx context.Context) (Settings, error) {
	r := reading{Store: s}
	var out Settings
	out.Gateway = r.address(ctx, s.keys.gateway, theGateway)
	out.Gateway6 = r.address(ctx, s.keys.gateway6, theGateway6)
	if s.keys.gatewayIsDNS && out.Gateway.IsValid() {
		out.Virtual = append(out.Virtual, out.Gateway)
	}
	for _, key := range s.keys.dns {
		if a := r.address(ctx, key, aVirtualDNSAddress); a.IsValid() && !slices.Contains(out.Virtual, a) {
			out.Virtual = append(out.Virtual, a)
		}
	}
	for _, key := range s.keys.uplink {
		out.PassThrough = r.address(ctx, key, anUplinksAddress).IsValid() || out.PassThrough
	}
	if out.PassThrough {
		out.NextGateway = r.address(ctx, s.keys.own.gateway, theNextGateway)
		out.Resolvers = r.nameservers(ctx, out.NextGateway)
	}
	out.Harden = r.value(ctx, s.keys.harden) != "" || r.exists(filepath.Join(s.serviceDir, hardenService))
	if err := r.err(); err != nil {
		return Settings{}, err
	}
	return out, nil
}

// Mapping returns what hides an AppVM's address, false if nothing does. Only QubesDB has such mappings, for IPv4.
func (s *Store) Mapping(ctx context.Context, ip netip.Addr) (Mapping, bool, error) {
	if s.keys.mapping == "" || !ip.Is4() {
		return Mapping{}, false, nil
	}
	r := reading{Store: s}
	m := Mapping{
		Visible:        r.address(ctx, fmt.Sprintf(s.keys.mapping, ip, "visible-ip"), aVisibleAddress),
		VisibleGateway: r.address(ctx, fmt.Sprintf(s.keys.mapping, ip, "visible-gateway"), aVisibleAddress),
	}
	if err := r.err(); err != nil || !m.Visible.IsValid() {
		return Mapping{}, false, err
	}
	return m, true, nil
}

// reading collects what goes wrong while several keys are read.
type reading struct {
	*Store
	faults ValueErrors
	failed error // the connection: nothing more can be read
}

func (r *reading) err() error {
	switch {
	case r.failed != nil:
		return r.failed
	case len(r.faults) > 0:
		return r.faults
	}
	return nil
}

// value returns what a key says, "" if it is missing. The empty key is always missing.
func (r *reading) value(ctx context.Context, key string) string {
	if key == "" || r.failed != nil {
		return ""
	}
	value, err := r.source.Read(ctx, key)
	switch {
	case errors.Is(err, r.keys.missing):
		return ""
	case err != nil && r.source.Err() == nil: // this key is refused, the next may not be
		r.faults = append(r.faults, err)
	case err != nil:
		r.failed = err
	}
	return value
}

// address returns the address that a key says, the zero Addr if it is missing or a fault.
func (r *reading) address(ctx context.Context, key string, role role) netip.Addr {
	value := r.value(ctx, key)
	if value == "" {
		return netip.Addr{}
	}
	a, err := parseAddress(value, role)
	if err != nil {
		r.faults = append(r.faults, fmt.Errorf("%s: %s: %w", r.kind, key, err))
	}
	return a
}

// nameservers reads those of this domain; where the first is missing the gateway is one, as Qubes' own scripts have it.
func (r *reading) nameservers(ctx context.Context, gateway netip.Addr) []netip.Addr {
	var out []netip.Addr
	for i, key := range r.keys.own.dns {
		a := r.address(ctx, key, aNameserver)
		if !a.IsValid() && i == 0 {
			a = gateway
		}
		if a.IsValid() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func (r *reading) exists(path string) bool {
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.faults = append(r.faults, err)
	}
	return err == nil
}

// role says what an address is for, and which may take it.
type role struct {
	name      string
	ipv6      bool // it takes IPv6 addresses, and no other
	either    bool // it takes addresses of both families
	linkLocal bool // it takes link-local ones too
}

var (
	theGateway         = role{name: "the vifs' gateway"}
	theGateway6        = role{name: "the vifs' IPv6 gateway", ipv6: true, linkLocal: true} // Qubes itself uses one
	aVirtualDNSAddress = role{name: "a virtual DNS address"}
	anUplinksAddress   = role{name: "an address of the uplink"}
	anUplinksAddress6  = role{name: "an IPv6 address of the uplink", ipv6: true}
	theNextGateway     = role{name: "the uplink's gateway"}
	theNextGateway6    = role{name: "the uplink's IPv6 gateway", ipv6: true, linkLocal: true} // Qubes itself uses one
	aNameserver        = role{name: "a nameserver", either: true}
	aVisibleAddress    = role{name: "an AppVM's visible address"}
)

// maxShown is how much of a bad value is shown, in bytes; maxAddress is the longest text that is an address: IPv6 with
// an IPv4 tail.
const maxShown, maxAddress = 64, 45

// shorten quotes a bad value, and leaves out what nobody would read.
func shorten(value string) string {
	if len(value) > maxShown {
		return fmt.Sprintf("%q…", value[:maxShown])
	}
	return fmt.Sprintf("%q", value)
}

// parseAddress reads an address for a role. The error shows the value and says what is wrong with it.
func parseAddress(value string, role role) (netip.Addr, error) {
	shown := shorten(value)
	if len(value) > maxAddress {
		return netip.Addr{}, fmt.Errorf("%s is no address: %d bytes are too many", shown, len(value))
	}
	if _, err := netip.ParsePrefix(value); err == nil {
		return netip.Addr{}, fmt.Errorf("%s is a network, and an address is wanted", shown)
	}
	a, err := netip.ParseAddr(value)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s is no address", shown)
	}
	if why := role.objection(a); why != "" {
		return netip.Addr{}, fmt.Errorf("%s cannot be %s: %s", shown, role.name, why)
	}
	return a, nil
}

// objection says why an address cannot have the role, "" if it can.
func (r role) objection(a netip.Addr) string {
	switch {
	case a.Is4In6():
		return "an IPv4 address written as IPv6"
	case a.Zone() != "":
		return "it has a zone"
	case a.Is4() && r.ipv6:
		return "an IPv4 address"
	case a.Is6() && !r.ipv6 && !r.either:
		return "an IPv6 address"
	case a.IsUnspecified():
		return "the unspecified address"
	case a.IsLoopback():
		return "a loopback address"
	case a.IsMulticast():
		return "a multicast address"
	case a.IsLinkLocalUnicast() && !r.linkLocal:
		return "a link-local address"
	case !a.IsGlobalUnicast() && !a.IsLinkLocalUnicast():
		return "the broadcast address"
	}
	return ""
}
