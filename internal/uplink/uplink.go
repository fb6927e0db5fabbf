// Package uplink sets up the interface of a domain that another netvm serves, an AppVM's or a chained netvm's eth0: its
// address, its one default route, permanent neighbours, and the nameservers. Each step is idempotent, is written down
// before it is taken, and can be reverted by another process, also after this one was killed half-way.
package uplink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"netvmd/internal/store"
)

// Spec is how an interface is to be.
type Spec struct {
	Interface string
	MAC       net.HardwareAddr // the interface's; nil = whichever it has
	Keys      string           // where that stands in the store, for people; "" = in no store
	Addresses []netip.Prefix   // at most one of each family
	Gateway   netip.Addr       // IPv4; the zero Addr without an IPv4 address
	Gateway6  netip.Addr       // IPv6; the zero Addr without an IPv6 address
	Resolvers []netip.Addr     // the nameservers, in order
	// DefaultRoute: everything goes there. Without it the gateway and the nameservers are reached, and nothing else.
	DefaultRoute bool
	DNS          bool // this domain asks the nameservers
	// Network: an ordinary network is behind the interface, and not a netvm alone: see store.Uplink.
	Network bool
}

// ReadSpec reads what the store says of an interface of this machine. Where it says nothing the error wraps
// store.ErrUnconfigured. What makes no sense, in the store or between the store and the interfaces, is an error that names it.
func ReadSpec(ctx context.Context, s *store.Store, name string) (Spec, error) {
	cards, err := listCards()
	if err != nil {
		return Spec{}, err
	}
	return readSpec(ctx, s, cards, name)
}

func readSpec(ctx context.Context, s *store.Store, cards []card, name string) (Spec, error) {
	own, err := findCard(cards, name)
	if err != nil {
		return Spec{}, err
	}
	said, err := s.CardUplink(ctx, own.mac)
	if errors.Is(err, store.ErrUnconfigured) {
		said, err = domainUplink(ctx, s, cards, own)
	}
	if err != nil {
		return Spec{}, fmt.Errorf("%s: %w", name, err)
	}
	return Spec{
		Interface: name, MAC: own.mac, Keys: s.Kind() + ": " + said.Keys, Addresses: said.Addresses,
		Gateway: said.Gateway, Gateway6: said.Gateway6, Resolvers: said.Resolvers,
		DefaultRoute: !said.NoDefaultRoute, DNS: !said.NoDNS, Network: said.Network,
	}, nil
}

// domainUplink reads what the store says of the domain's one card, if that is this one.
func domainUplink(ctx context.Context, s *store.Store, cards []card, own card) (store.Uplink, error) {
	said, err := s.Uplink(ctx)
	if err != nil {
		return store.Uplink{}, err
	}
	mac, key, err := s.UplinkMAC(ctx)
	switch others := namesOf(candidates(cards)); {
	case err != nil:
		return store.Uplink{}, err
	case mac == nil && (len(others) > 1 || !slices.Contains(others, own.name)):
		return store.Uplink{}, fmt.Errorf("%s: %s is missing, and %s may mean each of %s", s.Kind(), key, said.Keys, strings.Join(others, ", "))
	case mac == nil || slices.Equal(mac, own.mac):
		return said, nil
	}
	whose := "which no interface has"
	if i := slices.IndexFunc(cards, func(c card) bool { return slices.Equal(c.mac, mac) }); i >= 0 {
		whose = "that of " + cards[i].name
	}
	return store.Uplink{}, fmt.Errorf("%w: %s: %s is %s, %s; %s has %s", store.ErrUnconfigured, s.Kind(), key, mac, whose, own.name, own.mac)
}

// join lists addresses for people.
func join(list []netip.Addr) string {
	words := make([]string, len(list))
	for i, a := range list {
		words[i] = a.String()
	}
	return strings.Join(words, ", ")
}
