package store

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
)

// shelf is a QubesDB without a socket, for what would take too long over one. internal/uplink tests the rest, over sockets.
type shelf map[string]string

var errNotOnShelf = errors.New("not there")

func (s shelf) Read(_ context.Context, path string) (string, error) {
	if value, is := s[path]; is {
		return value, nil
	}
	return "", errNotOnShelf
}
func (shelf) Watch(context.Context, ...string) (<-chan struct{}, error) { return nil, nil }
func (shelf) Done() <-chan struct{}                                     { return nil }
func (shelf) Err() error                                                { return nil }
func (shelf) Close() error                                              { return nil }

// FuzzUplink has whatever the keys say be either an error, or settings that can be those of a card.
func FuzzUplink(f *testing.F) {
	f.Add("10.137.0.11", "10.137.0.6", "fd09::b", "fe80::1", "10.139.1.1", "00:16:3e:5e:6c:0b", "255.255.255.0", "1")
	f.Add("", "", "", "", "", "", "24", "")
	f.Add("10.0.0.1\x00", "::ffff:1.2.3.4", "fe80::1%eth0", "::", "255.255.255.255", "00-16-3e-5e-6c-0b", "0", "false")
	own := net.HardwareAddr{0, 0x16, 0x3e, 0x5e, 0x6c, 0x0b}
	f.Fuzz(func(t *testing.T, ip, gateway, ip6, gateway6, dns, mac, netmask, custom string) {
		card := "/net-config/" + own.String() + "/"
		keys := qubesDBKeys
		keys.missing = errNotOnShelf
		s := &Store{kind: QubesDB, keys: keys, serviceDir: "/nowhere", source: shelf{
			"/qubes-ip": ip, "/qubes-gateway": gateway, "/qubes-ip6": ip6, "/qubes-gateway6": gateway6,
			"/qubes-primary-dns": dns, "/qubes-secondary-dns": gateway, "/qubes-mac": mac,
			card + "ip": ip, card + "netmask": netmask, card + "gateway": gateway,
			card + "ip6": ip6, card + "netmask6": netmask, card + "gateway6": gateway6, card + "custom": custom,
		}}
		ctx := context.Background()
		if u, err := s.Uplink(ctx); err == nil {
			mustBeAnUplink(t, u)
		}
		if u, err := s.CardUplink(ctx, own); err == nil {
			mustBeAnUplink(t, u)
		}
		if m, _, err := s.UplinkMAC(ctx); err == nil && m != nil && (len(m) != 6 || m[0]&1 != 0) {
			t.Errorf("a MAC that cannot be a card's: %s", m)
		}
	})
}

func mustBeAnUplink(t *testing.T, u Uplink) {
	t.Helper()
	if len(u.Addresses) == 0 || len(u.Addresses) > 2 {
		t.Fatalf("%d addresses", len(u.Addresses))
	}
	for _, p := range u.Addresses {
		gateway := u.Gateway6
		if p.Addr().Is4() {
			gateway = u.Gateway
		}
		if !p.IsValid() || !plainUnicast(p.Addr()) || gateway == p.Addr() || gateway.Is4() != p.Addr().Is4() || !plainUnicast(gateway) {
			t.Errorf("%s behind %s", p, gateway)
		}
		if !u.Network && p.Bits() != p.Addr().BitLen() {
			t.Errorf("%s, and nobody else is on the link", p)
		}
	}
	for _, r := range u.Resolvers {
		if !plainUnicast(r) {
			t.Errorf("a nameserver that cannot be one: %s", r)
		}
	}
}

func plainUnicast(a netip.Addr) bool {
	return a.IsValid() && (a.IsGlobalUnicast() || a.IsLinkLocalUnicast()) && a.Zone() == "" && !a.Is4In6()
}
