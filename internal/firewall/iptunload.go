package firewall

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// unloadedTables are the tables that hold anything of ours, in the order in which they are cleared: as long as there is
// antispoofing, which stands in raw, nobody gains by the rest being gone.
var unloadedTables = []string{"filter", "nat", "raw"}

// qubesGuards implements remover.
func (b *iptBackend) qubesGuards(ctx context.Context) (bool, error) {
	for _, f := range b.families {
		rules, err := f.save(ctx)
		if err != nil {
			return false, err
		}
		theirs, err := b.qubesBase(ctx, f, rules)
		if err != nil || !theirs {
			return false, err
		}
	}
	return true, nil
}

// remove implements remover.
func (b *iptBackend) remove(ctx context.Context) (changes []string, err error) {
	err = b.onceMore(ctx, func() error {
		for _, f := range b.families {
			gone, err := f.remove(ctx)
			changes = append(changes, gone...)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return changes, err
}

// remove clears the tables of one family.
func (f *iptFamily) remove(ctx context.Context) (changes []string, err error) {
	rules, err := f.save(ctx)
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	for _, table := range unloadedTables {
		r := f.removalFrom(table, rules[table])
		if len(r.lines) == 0 {
			continue
		}
		fmt.Fprintf(&text, "*%s\n%s\nCOMMIT\n", table, strings.Join(r.lines, "\n"))
		changes = append(changes, fmt.Sprintf("table %s of %s: %s", table, f.program, r.what()))
	}
	if text.Len() == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	out, err := runWith(ctx, text.String(), f.program+"-restore", "--noflush", "--wait", strconv.Itoa(lockWait))
	if err != nil {
		return nil, fmt.Errorf("iptables: clear the tables: %s-restore: %w: %s", f.program, err, oneLine(out))
	}
	return changes, nil
}

// removal is what clears one table, in the language of iptables-restore.
type removal struct {
	lines         []string
	jumps, chains int
	emptied       []string // chains that stay, as rules of somebody else lead to them
}

func (r removal) what() string {
	text := fmt.Sprintf("%d jumps and %d chains deleted", r.jumps, r.chains)
	if len(r.emptied) > 0 {
		text += "; " + strings.Join(r.emptied, ", ") + " emptied, as rules of somebody else lead there"
	}
	return text
}

// removalFrom finds what is ours in a table. Of what is somebody else's nothing is touched: a chain of ours to which a rule
// of theirs leads stays, without our rules.
func (f *iptFamily) removalFrom(table string, rules map[string][]string) removal {
	var r removal
	flushed := f.ownChains(table, rules)
	deleted := slices.Clone(flushed)
	if len(flushed) > 0 && rules[chainNAT] != nil {
		deleted = append(deleted, chainNAT) // Qubes' name: ours, once our rules are the only ones in it
	}
	leads := unloadedJumps(table)
	stays := map[string]bool{}
	for chain, list := range rules {
		if slices.Contains(flushed, chain) {
			if len(list) > 0 {
				r.lines = append(r.lines, "-F "+chain)
			}
			continue
		}
		for _, rule := range list {
			if !slices.Contains(leads[chain], rule) {
				stays[chain], stays[targetOf(rule)] = true, true
				continue
			}
			r.lines = append(r.lines, "-D "+chain+" "+rule)
			r.jumps++
		}
	}
	for _, chain := range deleted {
		if stays[chain] {
			r.emptied = append(r.emptied, chain)
			continue
		}
		r.lines = append(r.lines, "-X "+chain)
		r.chains++
	}
	return r
}

// unloadedJumps are our rules in chains that are not ours alone, by chain.
func unloadedJumps(table string) map[string][]string {
	jumps := map[string][]string{}
	for _, h := range hooks(true) {
		if h.table == table {
			jumps[h.name] = h.jumps
		}
	}
	if table == dnsChains.table {
		jumps[dnsChains.parent] = []string{"-j " + dnsChains.a, "-j " + dnsChains.b}
	}
	return jumps
}

// ownChains are those of a table that are ours alone. The admin's chains belong to them where any other is there: else they
// are of somebody who had the same idea.
func (f *iptFamily) ownChains(table string, rules map[string][]string) (names []string) {
	chains := slices.Concat(f.spoofChains(nil, nil), f.static(true), []staticChain{
		{table: dnsChains.table, name: dnsChains.a}, {table: dnsChains.table, name: dnsChains.b},
		{table: zoneChains.table, name: zoneChains.parent}, {table: zoneChains.table, name: zoneChains.a}, {table: zoneChains.table, name: zoneChains.b},
	})
	for _, c := range chains {
		if c.table == table && rules[c.name] != nil {
			names = append(names, c.name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	for _, c := range customChains {
		if c.table == table && rules[c.name] != nil {
			names = append(names, c.name)
		}
	}
	return names
}

// targetOf is the chain that a rule leads to, "" if it leads to none.
func targetOf(rule string) string {
	words := strings.Fields(rule)
	for i, word := range words[:max(len(words)-1, 0)] {
		if word == "-j" || word == "-g" {
			return words[i+1]
		}
	}
	return ""
}
