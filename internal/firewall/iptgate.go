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
	refused, err := refusing(virtual)
	if err != nil {
		return nil, fmt.Errorf("iptables: %w", err)
	}
	changes, err := b.refusals.lift()
	if err != nil {
		return nil, fmt.Errorf("iptables: %w", err)
	}
	more, err := b.bring(ctx, func(s *iptState, all table) table {
		if len(all) == 0 || s.fault != "" && len(s.table) == 0 {
			return refused.family(s.v4)
		}
		return s.table.kept()
	})
	return append(changes, more...), err
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
	given := make([]netvm.Admission, len(addrs))
	for i, a := range addrs {
		given[i] = netvm.Admission{Vif: vif, Addr: a}
	}
	return b.rearrange(ctx, vif, given)
}

// Expel implements Gate.
func (b *iptBackend) Expel(ctx context.Context, vif string, heirs []netvm.Admission) error {
	return b.rearrange(ctx, vif, heirs)
}

// rearrange takes from the vif all that it has, and gives these.
func (b *iptBackend) rearrange(ctx context.Context, vif string, given []netvm.Admission) error {
	err := checkAdmissions(given)
	if err == nil && !b.speaksIPv6() && len(admissionsOf(false, given)) > 0 {
		err = errNoIPv6
	}
	if err != nil {
		return fmt.Errorf("iptables: %s: %w", vif, err)
	}
	unlock, err := lockFile(ctx, b.lock)
	if err != nil {
		return fmt.Errorf("iptables: %s: %w", vif, err)
	}
	defer unlock()
	return b.onceMore(ctx, func() error { return b.rearrangeLocked(ctx, vif, given) })
}

func (b *iptBackend) rearrangeLocked(ctx context.Context, vif string, given []netvm.Admission) error {
	for _, f := range b.families {
		rules, err := f.save(ctx)
		if err != nil {
			return err
		}
		is := parseAdmissions(rules["raw"][chainAllowed])
		want := readmit(slices.Clone(is), vif, admissionsOf(f.v4, given))
		if err := f.changeAdmissions(ctx, rules, is, want); err != nil {
			return fmt.Errorf("iptables: %w", err)
		}
	}
	return nil
}

// changeAdmissions leads from who may send from where to who should. First what closes: an address has left one vif before it
// comes to another.
func (f *iptFamily) changeAdmissions(ctx context.Context, rules ruleset, is, want []netvm.Admission) error {
	allowed, guarded := rules["raw"][chainAllowed], rules["raw"][chainSpoof]
	for _, a := range is {
		if slices.Contains(want, a) {
			continue
		}
		if err := f.Delete("raw", chainAllowed, strings.Fields(allowRule(a))...); err != nil {
			return fmt.Errorf("%s: take %s from it: %w", a.Vif, a.Addr, err)
		}
	}
	if err := f.forgetGuards(guarded, want); err != nil {
		return err
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

// forgetGuards deletes the rules that guard an address which no vif has any more, also one that a killed program left.
func (f *iptFamily) forgetGuards(guarded []string, want []netvm.Admission) error {
	for _, rule := range guarded {
		needed := rule == toAllowed || slices.ContainsFunc(want, func(w netvm.Admission) bool { return guardRule(w.Addr) == rule })
		if needed {
			continue
		}
		if err := f.Delete("raw", chainSpoof, strings.Fields(rule)...); err != nil {
			return fmt.Errorf("delete %q from chain %s: %w", rule, chainSpoof, err)
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

// Strays implements Gate. There are none: a rule too many is damage, which Apply mends.
func (b *iptBackend) Strays(context.Context) ([]netvm.Admission, error) { return nil, nil }
