package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Uplink is what the store says about one network card of this domain, which leads to another netvm or, with Network,
// to an ordinary network.
type Uplink struct {
	Keys      string         // where it stands: the first of the keys
	Addresses []netip.Prefix // at most one of each family, IPv4 first; of a whole host's length unless Network
	Gateway   netip.Addr     // IPv4; the zero Addr without an IPv4 address
	Gateway6  netip.Addr     // IPv6, often link-local; the zero Addr without an IPv6 address
	Resolvers []netip.Addr   // what the domain has as nameservers, in order
	// Network: others than the netvm are on the link, as on a bridge, so that the addresses have the network's length and
	// neighbours are found by asking.
	Network bool
	// NoDefaultRoute and NoDNS are the Qubes services disable-default-route and disable-dns-server.
	NoDefaultRoute, NoDNS bool
}

// uplinkKeys say where a store has what about this domain's uplinks; "" = it does not have it.
type uplinkKeys struct {
	mac               string // of the card that the next keys are about
	ip, ip6           string
	gateway, gateway6 string
	dns               []string // the first is missing where the gateway is the first nameserver
	card              string   // a format for a card's MAC and the last part of the path
	service           string   // a format for a service's name
}

var qubesDBUplink = uplinkKeys{
	mac: "/qubes-mac",
	ip:  "/qubes-ip", ip6: "/qubes-ip6",
	gateway: "/qubes-gateway", gateway6: "/qubes-gateway6",
	dns:     []string{"/qubes-primary-dns", "/qubes-secondary-dns"},
	card:    "/net-config/%s/%s",
	service: "/qubes-service/%s",
}

// As Qubes OS 2 had it, where the gateway is the first nameserver.
var xenStoreUplink = uplinkKeys{
	mac: "device/vif/0/mac",
	ip:  "qubes_ip", gateway: "qubes_gateway",
	dns: []string{"qubes_gateway", "qubes_secondary_dns"},
}

// The services that leave something out of an uplink.
const (
	noDefaultRouteService = "disable-default-route"
	noDNSService          = "disable-dns-server"
)

// The last parts of a card's own keys.
var cardParts = []string{"ip", "netmask", "gateway", "ip6", "netmask6", "gateway6", "custom"}

// ErrUnconfigured says that the store configures no uplink: no netvm serves this domain, or the card is none of its.
var ErrUnconfigured = errors.New("the store configures no uplink")

// UplinkMAC returns the MAC of the card that Uplink is about, and the key that says so; nil = the store does not say.
func (s *Store) UplinkMAC(ctx context.Context) (mac net.HardwareAddr, key string, err error) {
	r := reading{Store: s}
	key = s.keys.own.mac
	if text := r.value(ctx, key); text != "" {
		if mac, err = parseMAC(text); err != nil {
			return nil, key, fmt.Errorf("%s: %s: %w", s.kind, key, err)
		}
	}
	return mac, key, r.err()
}

// Uplink reads what the store says of the domain's one card, whichever UplinkMAC names. Where it says nothing the error
// wraps ErrUnconfigured; where values make no sense it is ValueErrors.
func (s *Store) Uplink(ctx context.Context) (Uplink, error) {
	r := uplinkReading{reading{Store: s}}
	k := s.keys.own
	if s.kind == None {
		return Uplink{}, fmt.Errorf("%w: this machine has neither QubesDB nor XenStore", ErrUnconfigured)
	}
	out := Uplink{Keys: k.ip}
	// The netmask is of no use here: nobody but the netvm is on the link, whatever it says.
	out.add(r.address(ctx, k.ip, anUplinksAddress), 32)
	out.add(r.address(ctx, k.ip6, anUplinksAddress6), 128)
	if len(out.Addresses) == 0 && r.err() == nil {
		return Uplink{}, fmt.Errorf("%w: %s: %s is missing: no netvm serves this domain", ErrUnconfigured, s.kind, k.ip)
	}
	r.gateways(ctx, &out, k.gateway, k.gateway6)
	r.finish(ctx, &out)
	return out, r.err()
}

// CardUplink reads what the store says of the card with this MAC, which counts before Uplink. Where it says nothing the
// error wraps ErrUnconfigured; where values make no sense it is ValueErrors.
func (s *Store) CardUplink(ctx context.Context, mac net.HardwareAddr) (Uplink, error) {
	if s.keys.own.card == "" {
		return Uplink{}, fmt.Errorf("%w: %s has no settings of single cards", ErrUnconfigured, s.kind)
	}
	r := uplinkReading{reading{Store: s}}
	key := func(part string) string { return fmt.Sprintf(s.keys.own.card, mac, part) }
	out := Uplink{Keys: key("ip")}
	ip, ip6 := r.address(ctx, key("ip"), anUplinksAddress), r.address(ctx, key("ip6"), anUplinksAddress6)
	if !ip.IsValid() && !ip6.IsValid() && r.err() == nil {
		return Uplink{}, fmt.Errorf("%w: %s: %s is missing", ErrUnconfigured, s.kind, key("ip"))
	}
	bits, bits6 := r.netmask(ctx, key("netmask"), 32), r.netmask(ctx, key("netmask6"), 128)
	switch custom := r.value(ctx, key("custom")); custom {
	case "": // older ones do not say: then a network with room for others is one
		out.Network = ip.IsValid() && bits < 32 || ip6.IsValid() && bits6 < 128
	case "0", "false", "False":
	default:
		out.Network = true
	}
	if !out.Network {
		bits, bits6 = 32, 128
	}
	out.add(ip, bits)
	out.add(ip6, bits6)
	r.gateways(ctx, &out, key("gateway"), key("gateway6"))
	r.finish(ctx, &out)
	return out, r.err()
}

// WatchUplink returns a channel that has a token whenever what Uplink, UplinkMAC or CardUplink of this MAC return may have
// changed. It lasts as long as the connection, see Done.
func (s *Store) WatchUplink(ctx context.Context, mac net.HardwareAddr) (<-chan struct{}, error) {
	k := s.keys.own
	var watched []string
	for _, key := range append([]string{k.mac, k.ip, k.ip6, k.gateway, k.gateway6}, k.dns...) {
		if key != "" && !slices.Contains(watched, key) {
			watched = append(watched, key)
		}
	}
	if k.card != "" {
		for _, part := range cardParts {
			watched = append(watched, fmt.Sprintf(k.card, mac, part))
		}
	}
	if k.service != "" {
		watched = append(watched, fmt.Sprintf(k.service, noDefaultRouteService), fmt.Sprintf(k.service, noDNSService))
	}
	return s.source.Watch(ctx, watched...)
}

// Done is closed when the connection has ended; what was watched says nothing any more then. For None it is nil.
func (s *Store) Done() <-chan struct{} { return s.source.Done() }

// Err says why the connection has ended, nil as long as it has not.
func (s *Store) Err() error { return s.source.Err() }

// add gives the card an address, if it is one.
func (u *Uplink) add(a netip.Addr, bits int) {
	if a.IsValid() {
		u.Addresses = append(u.Addresses, netip.PrefixFrom(a, bits))
	}
}

// has tells whether the card has an address of the family.
func (u *Uplink) has(is4 bool) bool {
	return slices.ContainsFunc(u.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == is4 })
}

// uplinkReading reads what is in common to the two places.
type uplinkReading struct{ reading }

// gateways reads the gateway of each family that has an address: without it nothing could be reached.
func (r *uplinkReading) gateways(ctx context.Context, out *Uplink, key, key6 string) {
	for _, way := range []struct {
		is4  bool
		key  string
		role role
		to   *netip.Addr
	}{{true, key, theNextGateway, &out.Gateway}, {false, key6, theNextGateway6, &out.Gateway6}} {
		if !out.has(way.is4) {
			continue
		}
		faults := len(r.faults)
		*way.to = r.address(ctx, way.key, way.role)
		switch {
		case way.to.IsValid() && slices.ContainsFunc(out.Addresses, func(p netip.Prefix) bool { return p.Addr() == *way.to }):
			r.faults = append(r.faults, fmt.Errorf("%s: %s: %s is the domain's own address, and cannot be its gateway", r.kind, way.key, *way.to))
		case !way.to.IsValid() && len(r.faults) == faults && r.failed == nil:
			r.faults = append(r.faults, fmt.Errorf("%s: %s is missing: a domain with an address needs its gateway", r.kind, way.key))
		}
	}
}

// finish reads the nameservers and the services.
func (r *uplinkReading) finish(ctx context.Context, out *Uplink) {
	out.Resolvers = r.nameservers(ctx, out.Gateway)
	out.NoDefaultRoute = r.service(ctx, noDefaultRouteService)
	out.NoDNS = r.service(ctx, noDNSService)
}

// service tells whether a Qubes service is on.
func (r *uplinkReading) service(ctx context.Context, name string) bool {
	key := ""
	if r.keys.own.service != "" {
		key = fmt.Sprintf(r.keys.own.service, name)
	}
	return r.value(ctx, key) != "" || r.exists(filepath.Join(r.serviceDir, name))
}

// netmask reads a netmask, as a length or as IPv4 writes it; a missing one is a whole host's.
func (r *uplinkReading) netmask(ctx context.Context, key string, whole int) int {
	text := r.value(ctx, key)
	if text == "" {
		return whole
	}
	bits, err := parseNetmask(text, whole)
	if err != nil {
		r.faults = append(r.faults, fmt.Errorf("%s: %s: %w", r.kind, key, err))
	}
	return bits
}

// parseNetmask reads "24" or, for IPv4, "255.255.255.0".
func parseNetmask(text string, whole int) (bits int, err error) {
	if n, err := strconv.ParseUint(text, 10, 8); err == nil && n > 0 && n <= uint64(whole) && text[0] != '0' && text[0] != '+' {
		return int(n), nil
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Is4() && whole == 32 {
		if ones, size := net.IPMask(a.AsSlice()).Size(); size == 32 && ones > 0 {
			return ones, nil
		}
	}
	return whole, fmt.Errorf("%s is no netmask", shorten(text))
}

// parseMAC reads the MAC of an Ethernet card; nobody's is one that is not a unicast address.
func parseMAC(text string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(text)
	switch {
	case err != nil || len(mac) != 6 || strings.Contains(text, "."):
		return nil, fmt.Errorf("%s is no MAC", shorten(text))
	case mac[0]&1 != 0 || slices.Equal(mac, make(net.HardwareAddr, 6)):
		return nil, fmt.Errorf("%s cannot be a card's MAC", shorten(text))
	}
	return mac, nil
}
