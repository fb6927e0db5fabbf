package firewall

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"time"

	"github.com/google/nftables"

	"netvmd/internal/netvm"
)

// rulesetText is the static ruleset.
//
//go:embed netvmd.nft
var rulesetText string

// nftTimeout bounds the one run of nft; it takes some 15 ms on a quiet machine.
const nftTimeout = 10 * time.Second

// ownTable is the name of our tables, one in each family.
const ownTable = "netvmd"

// Names in netvmd.nft that the program reads or writes.
const (
	mapTargets  = "dns-targets"
	mapZones    = "dns-zones"
	setUnserved = "dns-unserved"
	setSeal     = "ruleset-seal"
)

// nftFamily is one of our two tables.
type nftFamily struct {
	word     string // as nft writes it
	v4       bool
	table    *nftables.Table
	targets  *nftables.Set
	zones    *nftables.Set
	unserved *nftables.Set
	seal     *nftables.Set
}

func newNFTFamily(word string, family nftables.TableFamily, address nftables.SetDatatype) *nftFamily {
	t := &nftables.Table{Name: ownTable, Family: family}
	return &nftFamily{
		word: word, v4: family == nftables.TableFamilyIPv4, table: t,
		targets:  &nftables.Set{Table: t, Name: mapTargets, IsMap: true, KeyType: address, DataType: address},
		zones:    &nftables.Set{Table: t, Name: mapZones, IsMap: true, KeyType: address, DataType: nftables.TypeInteger},
		unserved: &nftables.Set{Table: t, Name: setUnserved, KeyType: address},
		seal:     &nftables.Set{Table: t, Name: setSeal, KeyType: nftables.TypeIFName},
	}
}

// nftBackend keeps the tables `ip netvmd` and `ip6 netvmd`.
type nftBackend struct {
	log      *slog.Logger
	program  string
	families []*nftFamily
	refusals refusals
	reader   *nftReader
	writer   *nftables.Conn // nil after an error: its socket may hold answers that nobody waits for
	// last is what was read or written last; it holds as long as the kernel's generation is last.generation.
	last *nftState
}

func newNFTables(ctx context.Context, log *slog.Logger) (*nftBackend, error) {
	program, err := lookProgram("nft")
	if err != nil {
		return nil, fmt.Errorf("nftables: %w: install the package nftables", err)
	}
	b := &nftBackend{
		log: log, program: program,
		refusals: refusals{log: log, stuck: map[string]bool{}},
		families: []*nftFamily{
			newNFTFamily("ip", nftables.TableFamilyIPv4, nftables.TypeIPAddr),
			newNFTFamily("ip6", nftables.TableFamilyIPv6, nftables.TypeIP6Addr),
		},
		reader: &nftReader{},
	}
	if _, err := b.reader.generation(ctx); err != nil {
		return nil, fmt.Errorf("nftables: the kernel does not answer for nf_tables (load the module, run as root): %w", err)
	}
	return b, nil
}

// Name is "nftables".
func (b *nftBackend) Name() string { return KindNFTables }

// Apply implements Backend.
func (b *nftBackend) Apply(ctx context.Context, targets []netvm.Target) ([]string, error) {
	want, err := wanted(targets)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	changes, err := b.refusals.lift()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	state, err := b.read(ctx)
	if err != nil {
		return changes, err
	}
	if state.fault != "" {
		if err := b.load(ctx, want); err != nil {
			return changes, err
		}
		changes = append(changes, "ruleset loaded: "+state.fault)
		return append(changes, describeChanges(state.table, want)...), nil
	}
	if len(differing(state.table, want)) == 0 {
		return changes, nil
	}
	if err := b.replaceElements(ctx, state, want); err != nil {
		return changes, err
	}
	return append(changes, describeChanges(state.table, want)...), nil
}

// Check implements Backend.
func (b *nftBackend) Check(ctx context.Context, targets []netvm.Target) ([]string, error) {
	want, err := wanted(targets)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	limited, err := b.refusals.limited()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	var out []string
	for _, path := range limited {
		out = append(out, path+" limits how many queries are refused")
	}
	state, err := b.read(ctx)
	if err != nil {
		return nil, err
	}
	if state.fault != "" {
		out = append(out, state.fault)
	}
	return append(out, describeDifferences(state.table, want)...), nil
}

// load puts the ruleset and the elements into the kernel in one transaction and seals it.
func (b *nftBackend) load(ctx context.Context, want table) error {
	b.last = nil
	text := rulesetText + elementsText(b.families, want)
	err := b.runNFT(ctx, text)
	if err != nil {
		// What an older version or somebody else left may contradict ours: then our tables are made anew, still in one
		// transaction. What an admin added to them goes with them.
		b.log.Warn("ruleset does not fit onto the tables that are there: they are made anew", "error", err)
		var fresh strings.Builder
		for _, f := range b.families {
			fmt.Fprintf(&fresh, "add table %s %s\ndelete table %s %s\n", f.word, ownTable, f.word, ownTable)
		}
		if again := b.runNFT(ctx, fresh.String()+text); again != nil {
			return fmt.Errorf("nftables: load the ruleset: %w", errors.Join(err, again))
		}
	}
	return b.writeSeals(ctx)
}

func (b *nftBackend) runNFT(ctx context.Context, text string) error {
	ctx, cancel := context.WithTimeout(ctx, nftTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.program, "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s -f -: %w: %s", b.program, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// elementsText writes the wanted elements in nft's language, for the transaction that loads the rules.
func elementsText(families []*nftFamily, want table) string {
	var s strings.Builder
	for _, f := range families {
		fmt.Fprintf(&s, "flush set %s %s %s\n", f.word, ownTable, setSeal)
		fmt.Fprintf(&s, "flush map %s %s %s\n", f.word, ownTable, mapTargets)
		fmt.Fprintf(&s, "flush map %s %s %s\n", f.word, ownTable, mapZones)
		fmt.Fprintf(&s, "flush set %s %s %s\n", f.word, ownTable, setUnserved)
		for _, v := range want.sorted(f.v4) {
			e := want[v]
			if e.resolver.IsValid() {
				fmt.Fprintf(&s, "add element %s %s %s { %s : %s }\n", f.word, ownTable, mapTargets, v, e.resolver)
			}
			if e.zoned {
				fmt.Fprintf(&s, "add element %s %s %s { %s : %d }\n", f.word, ownTable, mapZones, v, e.zone)
			}
			if e.refused {
				fmt.Fprintf(&s, "add element %s %s %s { %s }\n", f.word, ownTable, setUnserved, v)
			}
		}
	}
	return s.String()
}

// replaceElements writes the difference, over both families, in one transaction.
func (b *nftBackend) replaceElements(ctx context.Context, state *nftState, want table) error {
	b.last = nil
	err := b.transact(func(c *nftables.Conn) error {
		for _, f := range b.families {
			if err := f.change(c, state.table.family(f.v4), want.family(f.v4)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("nftables: replace the DNS targets: %w", err)
	}
	generation, err := b.reader.generation(ctx)
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	// Exactly one generation later, nobody else wrote in between, and what we wrote is what there is.
	if generation == state.generation+1 {
		b.last = &nftState{generation: generation, table: want}
	}
	return nil
}

// transact collects messages and sends them as one batch.
func (b *nftBackend) transact(fill func(*nftables.Conn) error) error {
	if b.writer == nil {
		c, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return fmt.Errorf("open a netlink socket: %w", err)
		}
		b.writer = c
	}
	err := fill(b.writer)
	if err == nil {
		err = b.writer.Flush()
	}
	if err != nil {
		err = errors.Join(err, b.writer.CloseLasting())
		b.writer = nil
	}
	return err
}

// change adds to the batch what brings our sets from one table to the other: a message for what goes from a set and
// one for what comes, as each costs an answer of the kernel's.
func (f *nftFamily) change(c *nftables.Conn, was, now table) error {
	for _, s := range []struct {
		set     *nftables.Set
		element func(key []byte, e entry) *nftables.SetElement
	}{{f.targets, targetElement}, {f.zones, zoneElement}, {f.unserved, refusedElement}} {
		var gone, come []nftables.SetElement
		for _, v := range differing(was, now) {
			before, after := s.element(v.AsSlice(), was[v]), s.element(v.AsSlice(), now[v])
			if before != nil && after != nil && bytes.Equal(before.Val, after.Val) {
				continue
			}
			if before != nil {
				gone = append(gone, *before)
			}
			if after != nil {
				come = append(come, *after)
			}
		}
		if len(gone) > 0 {
			if err := c.SetDeleteElements(s.set, gone); err != nil {
				return fmt.Errorf("delete from %s: %w", s.set.Name, err)
			}
		}
		if len(come) > 0 {
			if err := c.SetAddElements(s.set, come); err != nil {
				return fmt.Errorf("add to %s: %w", s.set.Name, err)
			}
		}
	}
	return nil
}
