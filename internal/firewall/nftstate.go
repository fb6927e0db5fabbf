package firewall

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// nftState is what the kernel holds of ours.
type nftState struct {
	generation uint32
	table      table
	fault      string // what is wrong with the rules; "" when they are ours, whole
}

// ownChains and ownSets are the objects that the seal covers; what an admin adds beside them is no concern of ours.
var (
	ownChains = []string{
		"antispoof", "dns-zone", "dns-refuse", "dnat-dns", "dns-guard", "input", "forward", "postrouting", "accelerate",
	}
	ownSets = []string{mapTargets, mapZones, setUnserved, setAllowed, setDownstream, setSeal}
)

// sealLength is how much of the fingerprint goes into the seal, whose type holds names of up to 15 characters
// (IFNAMSIZ - 1): 60 bits, against accidents and not against root.
const sealLength = 15

func targetElement(key []byte, e entry) *nftables.SetElement {
	if !e.resolver.IsValid() {
		return nil
	}
	return &nftables.SetElement{Key: key, Val: e.resolver.AsSlice()}
}

// zoneElement: the kernel takes a zone in its own byte order.
func zoneElement(key []byte, e entry) *nftables.SetElement {
	if !e.zoned {
		return nil
	}
	return &nftables.SetElement{Key: key, Val: binary.NativeEndian.AppendUint16(nil, e.zone)}
}

func refusedElement(key []byte, e entry) *nftables.SetElement {
	if !e.refused {
		return nil
	}
	return &nftables.SetElement{Key: key}
}

// read gives the state of the kernel. As long as nobody committed anything, that is what was seen last.
func (b *nftBackend) read(ctx context.Context) (*nftState, error) {
	generation, err := b.reader.generation(ctx)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	if b.last != nil && b.last.generation == generation {
		return b.last, nil
	}
	texts, err := b.rulesetTexts(ctx)
	if err != nil {
		return nil, err
	}
	objects, err := b.readObjects(ctx)
	if err != nil {
		return nil, fmt.Errorf("nftables: read the rules: %w", err)
	}
	state := &nftState{generation: generation, table: table{}}
	for _, f := range b.families {
		fault, err := b.readFamily(ctx, f, objects, texts, state.table)
		if err != nil {
			return nil, fmt.Errorf("nftables: read table %s %s: %w", f.word, ownTable, err)
		}
		if fault != "" && state.fault == "" {
			state.fault = fmt.Sprintf("table %s %s %s", f.word, ownTable, fault)
		}
	}
	b.last = state
	return state, nil
}

// readFamily adds the elements of one table to into, and says what is wrong with its rules.
func (b *nftBackend) readFamily(ctx context.Context, f *nftFamily, all nftObjects, texts []string, into table) (fault string, err error) {
	digest := all.digest(f)
	if digest == nil {
		return "is missing", nil
	}
	seals, err := b.reader.elements(ctx, f.seal)
	if errors.Is(err, unix.ENOENT) {
		return "is not sealed", nil
	}
	if err != nil {
		return "", err
	}
	switch {
	case len(seals) != 1:
		fault = "is not sealed"
	case !slices.ContainsFunc(texts, func(text string) bool { return nulTerminated(seals[0].Key) == sealWord(text, digest) }):
		fault = "has other rules than this version of netvmd"
	}
	if err := b.readElements(ctx, f, into); err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, errElementForm) {
			return err.Error(), nil
		}
		return "", err
	}
	return fault, nil
}

// errElementForm is about an element that our sets cannot hold: somebody made the set anew.
var errElementForm = errors.New("element of another form")

func (b *nftBackend) readElements(ctx context.Context, f *nftFamily, into table) error {
	for _, set := range []*nftables.Set{f.targets, f.zones, f.unserved} {
		if set == nil {
			continue
		}
		elements, err := b.reader.elements(ctx, set)
		if err != nil {
			return fmt.Errorf("has no readable %s: %w", set.Name, err)
		}
		for _, el := range elements {
			v, ok := netip.AddrFromSlice(el.Key)
			if !ok || v.Is4() != f.v4 {
				return fmt.Errorf("%s: key %x: %w", set.Name, el.Key, errElementForm)
			}
			e := into[v]
			switch set {
			case f.targets:
				if e.resolver, ok = netip.AddrFromSlice(el.Val); !ok || e.resolver.Is4() != f.v4 {
					return fmt.Errorf("%s: value %x: %w", set.Name, el.Val, errElementForm)
				}
			case f.zones:
				if len(el.Val) < 2 {
					return fmt.Errorf("%s: value %x: %w", set.Name, el.Val, errElementForm)
				}
				e.zone, e.zoned = binary.NativeEndian.Uint16(el.Val), true
			case f.unserved:
				e.refused = true
			}
			into[v] = e
		}
	}
	return nil
}

// sealWord is the fingerprint of a text that we load and of what the kernel made of it.
func sealWord(text string, digest []byte) string {
	h := sha256.New()
	feed(h, []byte(text), digest)
	return hex.EncodeToString(h.Sum(nil))[:sealLength]
}

// nftObjects are all objects of our tables, of all families: a question to the kernel for each kind, not for each table.
type nftObjects struct{ tables, chains, rules, sets []attributes }

func (b *nftBackend) readObjects(ctx context.Context) (nftObjects, error) {
	var all nftObjects
	for _, kind := range []struct {
		into  *[]attributes
		what  uint16
		table uint16 // the attribute that names its table
	}{
		{&all.tables, unix.NFT_MSG_GETTABLE, unix.NFTA_TABLE_NAME},
		{&all.chains, unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE},
		{&all.rules, unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE},
		{&all.sets, unix.NFT_MSG_GETSET, unix.NFTA_SET_TABLE},
	} {
		list, err := b.reader.get(ctx, unix.NFPROTO_UNSPEC, kind.what, true)
		if err != nil {
			return nftObjects{}, err
		}
		*kind.into = slices.DeleteFunc(list, func(a attributes) bool { return nulTerminated(a[kind.table]) != ownTable })
	}
	return all, nil
}

// digest condenses what the kernel holds of one table of ours: its flags, our chains, the expressions of their rules, and
// the types of our sets; nil = there is no such table. Handles and counters are left out, as they differ from load to
// load.
func (o nftObjects) digest(f *nftFamily) []byte {
	h := sha256.New()
	found := false
	visit := func(list []attributes, name uint16, known []string, parts ...uint16) {
		for _, a := range list {
			if a[messageFamily][0] != byte(f.table.Family) || known != nil && !slices.Contains(known, nulTerminated(a[name])) {
				continue
			}
			found = true
			for _, part := range parts {
				feed(h, a[part])
			}
		}
	}
	visit(o.tables, unix.NFTA_TABLE_NAME, nil, unix.NFTA_TABLE_FLAGS)
	visit(o.chains, unix.NFTA_CHAIN_NAME, ownChains,
		unix.NFTA_CHAIN_NAME, unix.NFTA_CHAIN_HOOK, unix.NFTA_CHAIN_POLICY, unix.NFTA_CHAIN_TYPE)
	visit(o.rules, unix.NFTA_RULE_CHAIN, ownChains, unix.NFTA_RULE_CHAIN, unix.NFTA_RULE_EXPRESSIONS)
	visit(o.sets, unix.NFTA_SET_NAME, ownSets, unix.NFTA_SET_NAME, unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE,
		unix.NFTA_SET_KEY_LEN, unix.NFTA_SET_DATA_TYPE, unix.NFTA_SET_DATA_LEN)
	if !found {
		return nil
	}
	return h.Sum(nil)
}

// feed hashes each part with its length before it, so that no two lists of parts hash alike.
func feed(h hash.Hash, parts ...[]byte) {
	for _, p := range parts {
		// A hash's Write never fails.
		_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
		_, _ = h.Write(p)
	}
}

// writeSeals seals the tables, which were loaded from this text, as they are now.
func (b *nftBackend) writeSeals(ctx context.Context, text string) error {
	objects, err := b.readObjects(ctx)
	if err != nil {
		return fmt.Errorf("nftables: read back the rules: %w", err)
	}
	err = b.transact(func(c *nftables.Conn) error {
		for _, f := range b.families {
			key := make([]byte, unix.IFNAMSIZ)
			copy(key, sealWord(text, objects.digest(f)))
			if err := c.SetAddElements(f.seal, []nftables.SetElement{{Key: key}}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("nftables: seal the ruleset: %w", err)
	}
	return nil
}
