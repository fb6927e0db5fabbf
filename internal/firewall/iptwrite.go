package firewall

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// writeFilter mends the chains that never change.
func (f *iptFamily) writeFilter(ctx context.Context, s *iptState, _ table) error {
	for _, c := range f.static() {
		if !slices.Equal(s.rules["filter"][c.name], c.rules) || s.rules["filter"][c.name] == nil {
			if err := f.fill(ctx, "filter", c.name, c.rules); err != nil {
				return err
			}
		}
	}
	return f.writeJumps(ctx, s, "filter")
}

// writeNAT brings the translation to the wanted targets.
func (f *iptFamily) writeNAT(ctx context.Context, s *iptState, want table) error {
	return f.alternate(ctx, s, dnsChains, want)
}

// writeZones brings the conntrack zones to those of the wanted targets.
func (f *iptFamily) writeZones(ctx context.Context, s *iptState, want table) error {
	return f.alternate(ctx, s, zoneChains, want)
}

// alternate fills the spare chain, lets the one jump lead to it, and deletes the old chain.
func (f *iptFamily) alternate(ctx context.Context, s *iptState, alt alternation, want table) error {
	live := s.rules.live(alt)
	old := alt.spare(live)
	if live == "" || !slices.Equal(s.rules[alt.table][live], alt.render(want)) {
		next := alt.spare(live)
		if live == "" {
			// Whatever refers to one of the two must go on doing so until the new jump is there: take the unused one.
			next = unusedOf(s.rules[alt.table][alt.parent], alt)
		}
		if err := f.fill(ctx, alt.table, next, alt.render(want)); err != nil {
			return err
		}
		if err := f.lead(alt, s.rules[alt.table][alt.parent], next); err != nil {
			return err
		}
		old = alt.spare(next)
	}
	if err := f.writeJumps(ctx, s, alt.table); err != nil {
		return err
	}
	if s.rules[alt.table][old] != nil {
		if err := f.ClearAndDeleteChain(alt.table, old); err != nil {
			return fmt.Errorf("delete chain %s: %w", old, err)
		}
	}
	return nil
}

// unusedOf is the chain of the two that no rule of the parent jumps to.
func unusedOf(parent []string, alt alternation) string {
	for _, rule := range parent {
		if strings.HasSuffix(rule, "-j "+alt.a) {
			return alt.b
		}
	}
	return alt.a
}

// lead makes the parent one jump to the next chain, replacing its first rule first: so there is no moment without a
// jump.
func (f *iptFamily) lead(alt alternation, parent []string, next string) error {
	if parent == nil {
		if err := f.ClearChain(alt.table, alt.parent); err != nil {
			return fmt.Errorf("create chain %s: %w", alt.parent, err)
		}
	}
	var err error
	if len(parent) == 0 {
		err = f.Append(alt.table, alt.parent, "-j", next)
	} else {
		err = f.Replace(alt.table, alt.parent, 1, "-j", next)
	}
	if err != nil {
		return fmt.Errorf("let chain %s jump to %s: %w", alt.parent, next, err)
	}
	for id := len(parent); id > 1; id-- {
		if err := f.DeleteById(alt.table, alt.parent, id); err != nil {
			return fmt.Errorf("delete rule %d of chain %s, which is not ours: %w", id, alt.parent, err)
		}
	}
	return nil
}

// fill makes a chain hold exactly these rules.
func (f *iptFamily) fill(ctx context.Context, table, chain string, rules []string) error {
	if err := f.ClearChain(table, chain); err != nil {
		return fmt.Errorf("create chain %s: %w", chain, err)
	}
	for _, rule := range rules {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("fill chain %s: %w", chain, err)
		}
		// No word of our rules holds a space.
		if err := f.Append(table, chain, strings.Fields(rule)...); err != nil {
			return fmt.Errorf("append %q to chain %s: %w", rule, chain, err)
		}
	}
	return nil
}

// writeJumps makes our jumps the first rules of the kernel's chains, and the only ones to our chains: first the new
// one, then away with the old, so that there is no moment without.
func (f *iptFamily) writeJumps(ctx context.Context, s *iptState, table string) error {
	for _, j := range jumps {
		rules := s.rules[j.table][j.from]
		if j.table != table || len(rules) > 0 && rules[0] == j.rule() {
			continue
		}
		if err := f.Insert(j.table, j.from, 1, strings.Fields(j.rule())...); err != nil {
			return fmt.Errorf("insert the jump from %s to %s: %w", j.from, j.to, err)
		}
		now, err := f.save(ctx)
		if err != nil {
			return err
		}
		rules = now[j.table][j.from]
		for i := len(rules) - 1; i > 0; i-- {
			if rules[i] != j.rule() {
				continue
			}
			if err := f.DeleteById(j.table, j.from, i+1); err != nil {
				return fmt.Errorf("delete the old jump from %s to %s: %w", j.from, j.to, err)
			}
		}
	}
	return nil
}
