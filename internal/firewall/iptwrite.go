package firewall

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// onceMore does a work of looking and writing a second time when it failed. What was read may be another's work of a
// moment before: a program that was killed leaves its last iptables running, and that heeds no lock of ours. Then a rule is
// not where it was, and another look finds it.
func (b *iptBackend) onceMore(ctx context.Context, work func() error) error {
	err := work()
	if err == nil || ctx.Err() != nil {
		return err
	}
	b.log.Debug("iptables: looking once more", "err", err)
	return work()
}

// bring brings the kernel to our rules, and to the targets that the caller wants of each family, told what there is.
func (b *iptBackend) bring(ctx context.Context, targetsFor func(s *iptState, all table) table) (changes []string, err error) {
	err = b.onceMore(ctx, func() error {
		changes, err = b.bringOnce(ctx, targetsFor)
		return err
	})
	return changes, err
}

func (b *iptBackend) bringOnce(ctx context.Context, targetsFor func(s *iptState, all table) table) ([]string, error) {
	states, unlock, err := b.readLocked(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	all, want := table{}, table{}
	for _, s := range states {
		maps.Copy(all, s.table)
	}
	var stale []*iptState
	var changes []string
	for _, s := range states {
		mine := targetsFor(s, all)
		if s.fault != "" {
			if len(s.admitted) == 0 { // the kernel knows nobody any more
				s.admitted = admissionsOf(s.v4, b.recall())
			}
			changes = append(changes, "ruleset loaded: "+s.fault)
		}
		more := describeChanges(s.table, mine)
		if s.fault != "" || len(more) > 0 {
			stale = append(stale, s)
		}
		changes = append(changes, more...)
		maps.Copy(want, mine)
	}
	if len(stale) == 0 {
		return nil, nil
	}
	if err := write(ctx, stale, want); err != nil {
		return nil, err
	}
	return changes, b.verify(ctx, want)
}

// write goes step by step through both families, so that no vif is unchecked in one while the other is being loaded.
// First comes what closes. Then NAT before the zones: in between, a client that keeps its port is still with the old
// resolver; the other way round, its new flow would be translated by the old rules.
func write(ctx context.Context, states []*iptState, want table) error {
	for _, step := range []func(*iptState, context.Context, table) error{
		(*iptState).writeSpoof, (*iptState).writeFilter, (*iptState).writeNAT, (*iptState).writeZones,
	} {
		for _, s := range states {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("iptables: %w", err)
			}
			if err := step(s, ctx, want.family(s.v4)); err != nil {
				return fmt.Errorf("iptables: %s: %w", s.program, err)
			}
		}
	}
	return nil
}

// verify reads back what was written.
func (b *iptBackend) verify(ctx context.Context, want table) error {
	states, err := b.read(ctx)
	if err != nil {
		return err
	}
	for _, s := range states {
		differences := describeDifferences(s.table, want.family(s.v4))
		if s.fault != "" || len(differences) != 0 {
			return fmt.Errorf("iptables: %s does not show what was written: %s %s", s.program, s.fault,
				strings.Join(differences, "; "))
		}
	}
	return nil
}

// writeSpoof mends the chains against spoofing, and then the way into them. It is the first step, and what is loaded
// first is the rule that drops everything.
func (s *iptState) writeSpoof(ctx context.Context, _ table) error {
	for _, c := range s.spoofChains(s.admitted, s.rules["raw"][chainSpoof]) {
		if err := s.mend(ctx, c); err != nil {
			return err
		}
	}
	if s.rules["raw"][chainZone] == nil {
		// The jump to it is made together with ours.
		if err := s.ClearChain("raw", chainZone); err != nil {
			return fmt.Errorf("create chain %s: %w", chainZone, err)
		}
	}
	return s.writeHooks(ctx, "raw")
}

// writeFilter mends the chains that never change.
func (s *iptState) writeFilter(ctx context.Context, _ table) error {
	if s.base {
		for _, c := range customChains {
			if s.rules[c.table][c.name] != nil {
				continue
			}
			if err := s.NewChain(c.table, c.name); err != nil {
				return fmt.Errorf("create chain %s: %w", c.name, err)
			}
		}
	}
	for _, c := range s.static(s.base) {
		if err := s.mend(ctx, c); err != nil {
			return err
		}
	}
	return s.writeHooks(ctx, "filter")
}

// writeNAT brings the translation to the wanted targets.
func (s *iptState) writeNAT(ctx context.Context, want table) error {
	if err := s.alternate(ctx, dnsChains, want); err != nil || s.base {
		return err
	}
	// By now nothing jumps to what is left of a base firewall.
	for _, c := range s.baseChains() {
		if s.rules[c.table][c.name] == nil {
			continue
		}
		if err := s.ClearAndDeleteChain(c.table, c.name); err != nil {
			return fmt.Errorf("delete chain %s: %w", c.name, err)
		}
	}
	return nil
}

// writeZones brings the conntrack zones to those of the wanted targets.
func (s *iptState) writeZones(ctx context.Context, want table) error {
	return s.alternate(ctx, zoneChains, want)
}

// alternate fills the spare chain, lets the one jump lead to it, and deletes the old chain.
func (s *iptState) alternate(ctx context.Context, alt alternation, want table) error {
	live := s.rules.live(alt)
	old := alt.spare(live)
	if live == "" || !slices.Equal(s.rules[alt.table][live], alt.render(want)) {
		next := alt.spare(live)
		if live == "" {
			// Whatever refers to one of the two must go on doing so until the new jump is there: take the unused one.
			next = unusedOf(s.rules[alt.table][alt.parent], alt)
		}
		if err := s.fill(ctx, alt.table, next, alt.render(want)); err != nil {
			return err
		}
		if err := s.lead(alt, s.rules[alt.table][alt.parent], next); err != nil {
			return err
		}
		old = alt.spare(next)
	}
	if err := s.writeHooks(ctx, alt.table); err != nil {
		return err
	}
	if s.rules[alt.table][old] != nil {
		if err := s.ClearAndDeleteChain(alt.table, old); err != nil {
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
	for i, rule := range rules {
		if err := f.insert(ctx, table, chain, i+1, rule); err != nil {
			return err
		}
	}
	return nil
}

// insert puts a rule at a place in a chain, the first of which is 1.
func (f *iptFamily) insert(ctx context.Context, table, chain string, at int, rule string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("insert into chain %s: %w", chain, err)
	}
	// No word of our rules holds a space.
	if err := f.Insert(table, chain, at, strings.Fields(rule)...); err != nil {
		return fmt.Errorf("insert %q into chain %s: %w", rule, chain, err)
	}
	return nil
}

// mend makes a chain hold exactly its rules, by as few changes as there are. Packets may be on their way through a
// chain that is there: it drops them all while it is neither what it was nor what it shall be. NAT cannot drop, and
// lets nothing through that filter would not.
func (s *iptState) mend(ctx context.Context, c staticChain) error {
	now := s.rules[c.table][c.name]
	if now == nil {
		if err := s.ClearChain(c.table, c.name); err != nil {
			return fmt.Errorf("create chain %s: %w", c.name, err)
		}
	}
	same, gone, come := difference(now, c.rules)
	if len(gone)+len(come) == 0 {
		return nil
	}
	at, closed := same+1, now != nil && c.table != "nat"
	if closed {
		if err := s.insert(ctx, c.table, c.name, 1, drop); err != nil {
			return err
		}
		at++
	}
	for range gone {
		if err := s.DeleteById(c.table, c.name, at); err != nil {
			return fmt.Errorf("delete a rule of chain %s, which is not ours: %w", c.name, err)
		}
	}
	for i, rule := range come {
		if err := s.insert(ctx, c.table, c.name, at+i, rule); err != nil {
			return err
		}
	}
	if !closed {
		return nil
	}
	if err := s.DeleteById(c.table, c.name, 1); err != nil {
		return fmt.Errorf("open chain %s again: %w", c.name, err)
	}
	return nil
}

// difference says what leads from one list of rules to another: after how many equal ones which are gone and which
// come in their place. After these both lists are equal again.
func difference(now, want []string) (same int, gone, come []string) {
	for len(now) > 0 && len(want) > 0 && now[0] == want[0] {
		now, want, same = now[1:], want[1:], same+1
	}
	for len(now) > 0 && len(want) > 0 && now[len(now)-1] == want[len(want)-1] {
		now, want = now[:len(now)-1], want[:len(want)-1]
	}
	return same, now, want
}

// writeHooks makes our jumps the first rules of the table's chains of the kernel's, and the only ones to our chains:
// first the new ones, then away with the old, so that there is no moment without.
func (s *iptState) writeHooks(ctx context.Context, table string) error {
	for _, h := range hooks(s.base) {
		now := s.rules[h.table][h.name]
		if h.table != table {
			continue
		}
		if !startsWith(now, h.jumps) {
			for i, jump := range h.jumps {
				if err := s.insert(ctx, h.table, h.name, i+1, jump); err != nil {
					return err
				}
			}
			rules, err := s.save(ctx)
			if err != nil {
				return err
			}
			now = rules[h.table][h.name]
		}
		if len(now) < len(h.jumps) {
			return fmt.Errorf("chain %s of table %s was emptied meanwhile", h.name, h.table)
		}
		strays := h.strays(now[len(h.jumps):])
		for i := len(strays) - 1; i >= 0; i-- {
			if err := s.DeleteById(h.table, h.name, len(h.jumps)+strays[i]+1); err != nil {
				return fmt.Errorf("delete an old jump from %s: %w", h.name, err)
			}
		}
	}
	return nil
}

// strays are the places, from 0, at which the rules jump once more into a chain of ours.
func (h hook) strays(rules []string) []int {
	var out []int
	for _, ours := range hooks(true) {
		if ours.table != h.table || ours.name != h.name {
			continue
		}
		for i, rule := range rules {
			if slices.Contains(ours.jumps, rule) {
				out = append(out, i)
			}
		}
	}
	return out
}

// startsWith tells whether the list begins with these rules.
func startsWith(rules, head []string) bool {
	return len(rules) >= len(head) && slices.Equal(rules[:len(head)], head)
}
