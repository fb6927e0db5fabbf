package dom0

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"netvmd/internal/store"
	"netvmd/internal/store/xenstore"
)

// frontends has a folder for each of dom0's own network cards.
const frontends = "/local/domain/0/device/vif"

// backends has a folder for each card that a domain gives to dom0; in it is what the domain says.
func backends(netvm int) string { return fmt.Sprintf("/local/domain/%d/backend/vif/0", netvm) }

// nodes is XenStore, as dom0 sees all of it. The end of a ctx does not end an exchange, which would end the connection, and
// that is needed to take everything back; each is bounded (dialog.Timeout).
type nodes struct{ *xenstore.Client }

// read gives a node's value, "" if there is none.
func (n nodes) read(ctx context.Context, path string) (string, error) {
	value, err := n.Read(context.WithoutCancel(ctx), path)
	if errors.Is(err, xenstore.ErrNoEntry) {
		return "", nil
	}
	return value, err
}

// list gives the names in a folder, none if there is no such folder.
func (n nodes) list(ctx context.Context, path string) ([]string, error) {
	names, err := n.List(context.WithoutCancel(ctx), path)
	if errors.Is(err, xenstore.ErrNoEntry) {
		return nil, nil
	}
	return names, err
}

// watch gives a channel that has a token whenever one of the paths, or something below it, may have changed.
func (n nodes) watch(ctx context.Context, paths ...string) (<-chan struct{}, error) {
	return n.Watch(context.WithoutCancel(ctx), paths...)
}

// card gives the number of dom0's card with a MAC, "" if it has none.
func (n nodes) card(ctx context.Context, mac string) (string, error) {
	ids, err := n.list(ctx, frontends)
	if err != nil {
		return "", err
	}
	for _, id := range ids {
		its, err := n.read(ctx, frontends+"/"+id+"/mac")
		if err != nil {
			return "", err
		}
		if strings.EqualFold(its, mac) {
			return id, nil
		}
	}
	return "", nil
}

// lack says what a card still lacks on the netvm's side, "" for nothing. An error is what the hotplug script there left.
func (n nodes) lack(ctx context.Context, netvm Domain, card string) (string, error) {
	folder := backends(netvm.ID) + "/" + card
	status, err := n.read(ctx, folder+"/hotplug-status")
	if err != nil {
		return "", err
	}
	complaint, err := n.read(ctx, folder+"/hotplug-error")
	if err != nil {
		return "", err
	}
	switch {
	case status == "connected":
		return "", nil
	case status == "error" || complaint != "":
		return "", fmt.Errorf("%s's hotplug script failed%s", netvm.Name, quoted(complaint))
	}
	return netvm.Name + "'s hotplug script has not said that the card is ready: does `xl devd` run there, and is netvmd installed?", nil
}

// above gives the domains that serve a netvm's own cards.
func (n nodes) above(ctx context.Context, netvm Domain, domains []Domain) ([]Domain, error) {
	folder := fmt.Sprintf("/local/domain/%d/device/vif", netvm.ID)
	cards, err := n.list(ctx, folder)
	if err != nil {
		return nil, err
	}
	var out []Domain
	for _, card := range cards {
		value, err := n.read(ctx, folder+"/"+card+"/backend-id")
		if err != nil {
			return nil, err
		}
		// What is no number names no domain: the netvm can write there too.
		id, err := strconv.Atoi(value)
		if d, is := find(domains, func(d Domain) bool { return d.ID == id }); err == nil && is && d.ID != 0 {
			out = append(out, d)
		}
	}
	return out, nil
}

// said is what a netvm's toolstack says of the cards that it serves.
type said struct {
	gateway netip.Addr   // the zero Addr = it does not say
	virtual []netip.Addr // likewise none
}

// settings asks the store of the netvm that dom0 has: QubesDB, whose daemon in dom0 has a socket for each domain
// (qubesdb.h, QDB_DAEMON_PATH_PATTERN), else XenStore. Both can be written by the netvm too.
func (n nodes) settings(ctx context.Context, netvm Domain, qubesDB string) (said, error) {
	db, err := store.Open(ctx, store.Options{Kind: store.QubesDB, QubesDBSocket: qubesDB})
	if err == nil {
		s, err := db.Settings(ctx)
		return said{s.Gateway, s.Virtual}, errors.Join(err, db.Close())
	}
	return n.ownSettings(ctx, netvm)
}

// ownSettings reads what XenStore says. The gateway is the first nameserver too, as Qubes OS 2 had it.
func (n nodes) ownSettings(ctx context.Context, netvm Domain) (s said, err error) {
	home := fmt.Sprintf("/local/domain/%d/", netvm.ID)
	if s.gateway, err = n.address(ctx, home+"qubes_netvm_gateway", "a gateway"); err != nil {
		return said{}, err
	}
	second, err := n.address(ctx, home+"qubes_netvm_secondary_dns", "a nameserver")
	if err != nil {
		return said{}, err
	}
	for _, a := range []netip.Addr{s.gateway, second} {
		if a.IsValid() {
			s.virtual = append(s.virtual, a)
		}
	}
	return s, nil
}

// address reads a node that must be what it is for, the zero Addr if there is no such node.
func (n nodes) address(ctx context.Context, path, role string) (netip.Addr, error) {
	value, err := n.read(ctx, path)
	if err != nil || value == "" {
		return netip.Addr{}, err
	}
	a, err := netip.ParseAddr(value)
	if err != nil || !canBeAGateway(a) {
		return netip.Addr{}, fmt.Errorf("xenstore: %s: %.64q cannot be %s: a unicast IPv4 address is wanted", path, value, role)
	}
	return a, nil
}

func canBeAGateway(a netip.Addr) bool { return a.Is4() && a.IsGlobalUnicast() }
