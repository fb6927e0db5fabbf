package firewall

import (
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
	return b.bring(ctx, func(s *iptState, all table) table {
		if len(all) == 0 || s.fault != "" && len(s.table) == 0 {
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
	if err := b.checkAdmission(vif, addrs...); err != nil {
		return err
	}
	return b.rearrange(ctx, func(is []netvm.Admission) []netvm.Admission { return admit(is, vif, addrs) })
}

// Expel implements Gate.
func (b *iptBackend) Expel(ctx context.Context, vif string, heirs []netvm.Admission) error {
	for _, h := range heirs {
		if err := b.checkAdmission(h.Vif, h.Addr); err != nil {
			return err
		}
	}
	return b.rearrange(ctx, func(is []netvm.Admission) []netvm.Admission { return expel(is, vif, heirs) })
}

// checkAdmission finds what no rule could hold.
func (b *iptBackend) checkAdmission(vif string, addrs ...netip.Addr) error {
	err := checkAdmission(vif, addrs...)
	if err == nil && !b.speaksIPv6() && slices.ContainsFunc(addrs, netip.Addr.Is6) {
		err = fmt.Errorf("%s: %w", vif, errNoIPv6)
	}
	if err != nil {
		return fmt.Errorf("iptables: %w", err)
	}
	return nil
}

// rearrange reads who may send from where, and writes what is different from what should be.
func (b *iptBackend) rearrange(ctx context.Context, should func([]netvm.Admission) []netvm.Admission) error {
	unlock, err := lockFile(ctx, b.lock)
	if err != nil {
		return fmt.Errorf("iptables: %w", err)
	}
	defer unlock()
	for _, f := range b.families {
		rules, err := f.save(ctx)
		if err != nil {
			return err
		}
		is := parseAdmissions(rules["raw"][chainAllowed])
		want := admissionsOf(f.v4, should(slices.Clone(is)))
		if err := f.readmit(ctx, rules, is, want); err != nil {
			return fmt.Errorf("iptables: %w", err)
		}
	}
	return nil
}

// readmit leads from who may send from where to who should. First what closes: an address has left one vif before it
// comes to another.
func (f *iptFamily) readmit(ctx context.Context, rules ruleset, is, want []netvm.Admission) error {
	allowed, guarded := rules["raw"][chainAllowed], rules["raw"][chainSpoof]
	for _, a := range is {
		if slices.Contains(want, a) {
			continue
		}
		if err := f.Delete("raw", chainAllowed, strings.Fields(allowRule(a))...); err != nil {
			return fmt.Errorf("%s: take %s from it: %w", a.Vif, a.Addr, err)
		}
		moves := slices.ContainsFunc(want, func(w netvm.Admission) bool { return w.Addr == a.Addr })
		if moves || !slices.Contains(guarded, guardRule(a.Addr)) {
			continue
		}
		if err := f.Delete("raw", chainSpoof, strings.Fields(guardRule(a.Addr))...); err != nil {
			return fmt.Errorf("%s: forget %s: %w", a.Vif, a.Addr, err)
		}
	}
	for _, a := range want {
		if slices.Contains(is, a) {
			continue
		}
		if !slices.Contains(allowed, drop) || !slices.Contains(guarded, toAllowed) {
			return fmt.Errorf("%s: admit %s: chain %s or %s is not loaded", a.Vif, a.Addr, chainSpoof, chainAllowed)
		}
		if err := f.admit(ctx, a, slices.Contains(guarded, guardRule(a.Addr))); err != nil {
			return fmt.Errorf("%s: admit %s: %w", a.Vif, a.Addr, err)
		}
	}
	return nil
}

// admit lets a vif send from an address that no other vif may send from, once nobody else can send from it.
func (f *iptFamily) admit(ctx context.Context, a netvm.Admission, guarded bool) error {
	if !guarded {
		if err := f.Append("raw", chainSpoof, strings.Fields(guardRule(a.Addr))...); err != nil {
			return err
		}
	}
	return f.insert(ctx, "raw", chainAllowed, len(f.neverAllowed())+1, allowRule(a))
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
	return ordered(out), nil
}
