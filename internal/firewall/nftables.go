package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/nftables"

	"netvmd/internal/netvm"
)

// ownTable is the name of our tables, one in each family.
const ownTable = "netvmd"

// Names in netvmd.nft that the program reads or writes.
const (
	mapTargets    = "dns-targets"
	mapZones      = "dns-zones"
	setUnserved   = "dns-unserved"
	setAllowed    = "allowed"
	setDownstream = "downstream"
	setSeal       = "ruleset-seal"
)

// nftFamily is one of our tables.
type nftFamily struct {
	word     string // as nft writes it
	v4       bool   // its addresses are IPv4's
	table    *nftables.Table
	targets  *nftables.Set // this one, zones, unserved and downstream are nil for arp
	zones    *nftables.Set
	unserved *nftables.Set
	allowed  *nftables.Set
	// downstream holds the addresses of allowed.
	downstream *nftables.Set
	seal       *nftables.Set
}

func newNFTFamily(word string, family nftables.TableFamily, address nftables.SetDatatype) *nftFamily {
	t := &nftables.Table{Name: ownTable, Family: family}
	f := &nftFamily{
		word: word, v4: family != nftables.TableFamilyIPv6, table: t,
		allowed: allowedSet(t, address),
		seal:    &nftables.Set{Table: t, Name: setSeal, KeyType: nftables.TypeIFName},
	}
	if family != nftables.TableFamilyARP {
		f.targets = &nftables.Set{Table: t, Name: mapTargets, IsMap: true, KeyType: address, DataType: address}
		f.zones = &nftables.Set{Table: t, Name: mapZones, IsMap: true, KeyType: address, DataType: nftables.TypeInteger}
		f.unserved = &nftables.Set{Table: t, Name: setUnserved, KeyType: address}
		f.downstream = &nftables.Set{Table: t, Name: setDownstream, KeyType: address}
	}
	return f
}

func allowedSet(t *nftables.Table, address nftables.SetDatatype) *nftables.Set {
	return &nftables.Set{
		Table: t, Name: setAllowed, Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIFName, address),
	}
}

// nftBackend keeps the tables `ip netvmd`, `ip6 netvmd` and `arp netvmd`.
type nftBackend struct {
	Options
	log      *slog.Logger
	program  string
	patience time.Duration // with one run of nft
	families []*nftFamily  // ip, ip6, arp
	inet     []*nftFamily  // ip and ip6: those that have to do with DNS
	refusals refusals
	reader   *nftReader
	writer   *nftables.Conn // nil after an error: its socket may hold answers that nobody waits for
	// last is what was read or written last; it holds as long as the kernel's generation is last.generation.
	last *nftState
	// gate is who may send from where; it holds as long as the kernel's generation is gateGeneration.
	gate           gateState
	gateGeneration uint32
}

func newNFTables(ctx context.Context, o Options) (*nftBackend, error) {
	program, err := lookProgram("nft")
	if err != nil {
		return nil, fmt.Errorf("nftables: %w: install the package nftables", err)
	}
	inet := []*nftFamily{
		newNFTFamily("ip", nftables.TableFamilyIPv4, nftables.TypeIPAddr),
		newNFTFamily("ip6", nftables.TableFamilyIPv6, nftables.TypeIP6Addr),
	}
	b := &nftBackend{
		Options: o, log: o.Log, program: program, patience: nftTimeout,
		refusals: newRefusals(o),
		families: append(slices.Clone(inet), newNFTFamily("arp", nftables.TableFamilyARP, nftables.TypeIPAddr)),
		inet:     inet,
		reader:   &nftReader{},
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
		loaded, err := b.load(ctx, func(table) table { return want })
		return append(changes, loaded...), err
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
	out, state, err := b.faults(ctx)
	if err != nil {
		return nil, err
	}
	return append(out, describeDifferences(state.table, want)...), nil
}

// Faults implements Backend.
func (b *nftBackend) Faults(ctx context.Context) ([]string, error) {
	out, _, err := b.faults(ctx)
	return out, err
}

func (b *nftBackend) faults(ctx context.Context) ([]string, *nftState, error) {
	out, err := b.refusals.limited()
	if err != nil {
		return nil, nil, fmt.Errorf("nftables: %w", err)
	}
	state, err := b.read(ctx)
	if err != nil {
		return nil, nil, err
	}
	if state.fault != "" {
		out = append(out, state.fault)
	}
	return out, state, nil
}

// Targets implements Backend.
func (b *nftBackend) Targets(ctx context.Context) ([]netvm.Target, error) {
	state, err := b.read(ctx)
	if err != nil {
		return nil, err
	}
	return state.table.targets(), nil
}

// replaceElements writes the difference, over both families, in one transaction.
func (b *nftBackend) replaceElements(ctx context.Context, state *nftState, want table) error {
	b.last = nil
	err := b.transact(func(c *nftables.Conn) error {
		for _, f := range b.inet {
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
