package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

// qubesTable is the name of the tables of Qubes' own scripts. Where they are, they have an antispoof chain with sets
// of the same names and types as ours, so a vif that stands in ours alone would be cut off.
const qubesTable = "qubes"

// Admit implements Gate.
func (b *nftBackend) Admit(ctx context.Context, vif string, addrs []netip.Addr) error {
	given := make([]netvm.Admission, len(addrs))
	for i, a := range addrs {
		given[i] = netvm.Admission{Vif: vif, Addr: a}
	}
	if err := checkAdmissions(given); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	err := b.rearrange(ctx, func(a []netvm.Admission) []netvm.Admission { return readmit(a, vif, given) })
	if err != nil {
		return fmt.Errorf("nftables: admit %s: %w", vif, err)
	}
	return nil
}

// Expel implements Gate.
func (b *nftBackend) Expel(ctx context.Context, vif string, heirs []netvm.Admission) error {
	if err := checkAdmissions(heirs); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	err := b.rearrange(ctx, func(a []netvm.Admission) []netvm.Admission { return readmit(a, vif, heirs) })
	if err != nil {
		return fmt.Errorf("nftables: expel %s: %w", vif, err)
	}
	return nil
}

// Admitted implements Gate. It leaves out what does not stand in every set that it must stand in.
func (b *nftBackend) Admitted(ctx context.Context) ([]netvm.Admission, error) {
	return b.admissions(ctx, gateState.whole)
}

// Strays implements Gate.
func (b *nftBackend) Strays(ctx context.Context) ([]netvm.Admission, error) {
	return b.admissions(ctx, func(g gateState, a netvm.Admission) bool { return !g.whole(a) })
}

// admissions lists those of one kind; none, where no rules are loaded.
func (b *nftBackend) admissions(ctx context.Context, wanted func(gateState, netvm.Admission) bool) ([]netvm.Admission, error) {
	state, err := b.readGate(ctx)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return slices.DeleteFunc(state.union(), func(a netvm.Admission) bool { return !wanted(state, a) }), nil
}

// whole tells whether an admission stands in every set that it must stand in: in ours, and in those of Qubes' own, which
// forget our vifs when Qubes loads them anew.
func (g gateState) whole(a netvm.Admission) bool {
	for _, s := range g {
		if key := s.key(a); key != nil && !s.has[string(key)] {
			return false
		}
	}
	return true
}

// lacks tells whether a set is missing in which an admission must stand.
func (g gateState) lacks(a netvm.Admission) bool {
	return slices.ContainsFunc(g, func(s gateSet) bool { return s.missing && s.key(a) != nil })
}

// gateSet is one set that says who may send from where, and what it holds.
type gateSet struct {
	set      *nftables.Set
	v4       bool
	byVif    bool // its keys name the vif, not the address alone
	optional bool // of Qubes' own table: we add and remove what is ours, and leave the rest
	missing  bool // the kernel has no such set: nothing can be taken from it, nor added
	has      map[string]bool
}

// gateState is all of them.
type gateState []gateSet

// readGate gives all sets that say who may send from where, and what they hold. As long as nobody committed anything,
// that is what was seen last.
func (b *nftBackend) readGate(ctx context.Context) (gateState, error) {
	generation, err := b.reader.generation(ctx)
	if err != nil {
		return nil, err
	}
	if b.gate == nil || b.gateGeneration != generation {
		if b.gate, err = b.readGateSets(ctx); err != nil {
			return nil, err
		}
		b.gateGeneration = generation
	}
	return b.gate, nil
}

func (b *nftBackend) readGateSets(ctx context.Context) (gateState, error) {
	var out gateState
	for _, f := range b.families {
		sets := []gateSet{{set: f.allowed, v4: f.v4, byVif: true}}
		if f.downstream != nil {
			sets = append(sets, gateSet{set: f.downstream, v4: f.v4})
			sets = append(sets, mirrorsOf(sets)...)
		}
		for _, s := range sets {
			elements, err := b.reader.elements(ctx, s.set)
			s.missing = errors.Is(err, unix.ENOENT)
			if s.optional && s.missing {
				continue
			}
			if err != nil && !s.missing {
				return nil, fmt.Errorf("read set %s of table %s: %w", s.set.Name, f.word, err)
			}
			s.has = make(map[string]bool, len(elements))
			for _, e := range elements {
				s.has[string(e.Key)] = true
			}
			out = append(out, s)
		}
	}
	return out, nil
}

// mirrorsOf are the sets of the same names in Qubes' own table.
func mirrorsOf(sets []gateSet) []gateSet {
	out := slices.Clone(sets)
	for i := range out {
		set := *out[i].set
		set.Table = &nftables.Table{Name: qubesTable, Family: set.Table.Family}
		out[i].set, out[i].optional = &set, true
	}
	return out
}

// union lists what stands in any of our sets that name vifs, ordered.
func (g gateState) union() []netvm.Admission {
	var out []netvm.Admission
	for _, s := range g {
		if !s.byVif || s.optional {
			continue
		}
		for key := range s.has {
			if a, ok := s.admission([]byte(key)); ok {
				out = append(out, a)
			}
		}
	}
	return ordered(out)
}

// admission decodes a key: the name of a vif in IFNAMSIZ bytes, then an address.
func (s gateSet) admission(key []byte) (netvm.Admission, bool) {
	if len(key) <= unix.IFNAMSIZ {
		return netvm.Admission{}, false
	}
	addr, ok := netip.AddrFromSlice(key[unix.IFNAMSIZ:])
	return netvm.Admission{Vif: nulTerminated(key[:unix.IFNAMSIZ]), Addr: addr}, ok && addr.Is4() == s.v4
}

// key encodes an admission for this set; nil if it has no place there.
func (s gateSet) key(a netvm.Admission) []byte {
	if a.Addr.Is4() != s.v4 {
		return nil
	}
	if !s.byVif {
		return a.Addr.AsSlice()
	}
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, a.Vif)
	return append(name, a.Addr.AsSlice()...)
}

// rearrange reads who may send from where, and writes what should be, in one transaction. Our own sets are brought to
// exactly that, whatever was amiss in them.
func (b *nftBackend) rearrange(ctx context.Context, should func([]netvm.Admission) []netvm.Admission) error {
	unlock, err := lockFile(ctx, b.Lock)
	if err != nil {
		return err
	}
	defer unlock()
	state, err := b.readGate(ctx)
	if err != nil {
		return err
	}
	is := state.union()
	want := should(slices.Clone(is))
	return b.transactVouched(ctx, func(c *nftables.Conn) error {
		for _, s := range state {
			gone, come := s.difference(is, want)
			if s.missing && len(come) > 0 {
				return fmt.Errorf("set %s of table %s is not loaded", s.set.Name, s.set.Table.Name)
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
	})
}

// difference gives the keys that must go from the set and those that must come.
func (s gateSet) difference(is, want []netvm.Admission) (gone, come []nftables.SetElement) {
	wanted := map[string]bool{}
	for _, a := range want {
		if key := s.key(a); key != nil && !wanted[string(key)] {
			wanted[string(key)] = true
			if !s.has[string(key)] {
				come = append(come, nftables.SetElement{Key: key})
			}
		}
	}
	ours := s.has
	if s.optional {
		ours = map[string]bool{}
		for _, a := range is {
			if key := s.key(a); key != nil && s.has[string(key)] {
				ours[string(key)] = true
			}
		}
	}
	for key := range ours {
		if !wanted[key] {
			gone = append(gone, nftables.SetElement{Key: []byte(key)})
		}
	}
	slices.SortFunc(gone, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
	return gone, come
}
