package firewall

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"netvmd/internal/netvm"
)

// Ensure implements Gate.
func (b *iptBackend) Ensure(ctx context.Context, virtual []netip.Addr) ([]string, error) {
	targets := make([]netvm.Target, len(virtual))
	for i, v := range virtual {
		targets[i].Virtual = v
	}
	refused, err := wanted(targets)
	if err != nil {
		return nil, fmt.Errorf("iptables: %w", err)
	}
	return b.bring(ctx, func(s *iptState) table {
		if len(s.table) == 0 {
			return refused.family(s.v4)
		}
		return s.table.kept()
	})
}

// kept is the table with what damage took from its entries: without a resolver an address is refused, and a resolver
// whose zone is lost gets one, until netvmd says better.
func (t table) kept() table {
	out := make(table, len(t))
	for v, e := range t {
		e.refused = !e.resolver.IsValid()
		if !e.zoned {
			e.zone, e.zoned = zoneOf(netvm.Resolver{Addr: e.resolver}), true
		}
		out[v] = e
	}
	return out
}

// Admit implements Gate. For a new vif that is one process to read and two to write for each address family; for one
// that has its addresses, those that read.
func (b *iptBackend) Admit(ctx context.Context, vif string, addrs []netip.Addr) error {
	all := make([]netvm.Admission, len(addrs))
	for i, a := range addrs {
		all[i] = netvm.Admission{Vif: vif, Addr: a}
	}
	return b.readmit(ctx, vif, all)
}

// Expel implements Gate.
func (b *iptBackend) Expel(ctx context.Context, vif string, heirs []netvm.Admission) error {
	return b.readmit(ctx, vif, heirs)
}

// readmit takes from the vif all that it has but what it is given here, which is given to others too.
func (b *iptBackend) readmit(ctx context.Context, vif string, given []netvm.Admission) error {
	if err := b.checkGiven(given); err != nil {
		return fmt.Errorf("iptables: %w", err)
	}
	unlock, err := lockFile(ctx, b.lock)
	if err != nil {
		return fmt.Errorf("iptables: %s: %w", vif, err)
	}
	defer unlock()
	for _, f := range b.families {
		if err := f.readmit(ctx, vif, admissionsOf(f.v4, given)); err != nil {
			return fmt.Errorf("iptables: %s: %w", vif, err)
		}
	}
	return nil
}

// checkGiven says what is wrong with who is given what.
func (b *iptBackend) checkGiven(given []netvm.Admission) error {
	for _, a := range given {
		if !a.Addr.Is4() && !b.speaksIPv6() {
			return fmt.Errorf("%s: %s: %w", a.Vif, a.Addr, errNoIPv6)
		}
	}
	return checkAdmissions(given)
}

// readmit writes what is different. First what closes: an address has left one vif before it comes to another.
func (f *iptFamily) readmit(ctx context.Context, vif string, given []netvm.Admission) error {
	rules, err := f.save(ctx)
	if err != nil {
		return err
	}
	allowed, guarded := rules["raw"][chainAllowed], rules["raw"][chainSpoof]
	now := parseAdmissions(allowed)
	taken, orphans := []netvm.Admission{}, []netip.Addr{}
	for _, a := range now {
		moves := slices.ContainsFunc(given, func(g netvm.Admission) bool { return g.Addr == a.Addr && g.Vif != a.Vif })
		if !moves && (a.Vif != vif || slices.Contains(given, a)) {
			continue
		}
		taken = append(taken, a)
		if !moves {
			orphans = append(orphans, a.Addr)
		}
	}
	for _, a := range taken {
		if err := f.Delete("raw", chainAllowed, strings.Fields(allowRule(a))...); err != nil {
			return fmt.Errorf("take %s from %s: %w", a.Addr, a.Vif, err)
		}
	}
	for _, addr := range orphans {
		if !slices.Contains(guarded, guardRule(addr)) {
			continue
		}
		if err := f.Delete("raw", chainSpoof, strings.Fields(guardRule(addr))...); err != nil {
			return fmt.Errorf("forget %s: %w", addr, err)
		}
	}
	for i, a := range given {
		if slices.Contains(now, a) || slices.Contains(given[:i], a) {
			continue
		}
		if !slices.Contains(allowed, drop) || !slices.Contains(guarded, toAllowed) {
			return fmt.Errorf("admit %s: chains %s and %s are not loaded", a.Addr, chainSpoof, chainAllowed)
		}
		if err := f.admit(ctx, a, slices.Contains(guarded, guardRule(a.Addr))); err != nil {
			return err
		}
	}
	return nil
}

// admit lets a vif send from an address that no other vif may send from, once it is guarded against everybody else.
func (f *iptFamily) admit(ctx context.Context, a netvm.Admission, guarded bool) error {
	if !guarded {
		// At the end, as it does not matter where: nobody else changes what is before it.
		if err := f.Append("raw", chainSpoof, strings.Fields(guardRule(a.Addr))...); err != nil {
			return fmt.Errorf("guard %s: %w", a.Addr, err)
		}
	}
	return f.insert(ctx, "raw", chainAllowed, 1, allowRule(a))
}

// Admitted implements Gate.
func (b *iptBackend) Admitted(ctx context.Context) ([]netvm.Admission, error) {
	var out []netvm.Admission
	for _, f := range b.families {
		rules, err := f.save(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, parseAdmissions(rules["raw"][chainAllowed])...)
	}
	slices.SortFunc(out, func(a, b netvm.Admission) int {
		return cmp.Or(strings.Compare(a.Vif, b.Vif), a.Addr.Compare(b.Addr))
	})
	return out, nil
}
