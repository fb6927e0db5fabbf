package firewall

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

// The static ruleset, and what is added to it where it is wanted.
var (
	//go:embed netvmd.nft
	ownText string
	//go:embed base.nft
	baseText string
	//go:embed flowtable.nft
	flowtableText string
)

// nftTimeout bounds one run of nft. It takes some 15 ms on a quiet machine; but the first load of a ruleset makes the
// kernel load two dozen modules, which took more than 10 s in a driver domain without hardware virtualisation.
const nftTimeout = 20 * time.Second

// flowtableProbe is a transaction that is only checked: it passes where the kernel has flowtables.
const flowtableProbe = "table ip netvmd-probe { flowtable probe { hook ingress priority filter\n}\n}\n"

// Values of Options.Base and Options.Flowtable.
const (
	always = "always"
	never  = "never"
)

// rulesetTexts are the texts that the rules in the kernel may come from. With flowtables in "auto" there are two, with
// and without them: which, is decided when the rules are loaded, as only a process can ask the kernel.
func (b *nftBackend) rulesetTexts(ctx context.Context) (texts []string, err error) {
	plain := ownText
	base, err := b.wantsBase(ctx)
	if err != nil {
		return nil, err
	}
	if base {
		plain += baseText
	}
	if b.Flowtable == never {
		return []string{plain}, nil
	}
	return []string{plain + flowtableText, plain}, nil
}

// wantsBase tells whether the base chains are ours to fill: in "auto" they are, unless Qubes' own tables have them.
func (b *nftBackend) wantsBase(ctx context.Context) (bool, error) {
	if b.Base == always || b.Base == never {
		return b.Base == always, nil
	}
	theirs, err := b.qubesGuards(ctx)
	if err != nil {
		return false, fmt.Errorf("nftables: %w", err)
	}
	return !theirs, nil
}

// qubesGuards tells whether Qubes' own tables have the base chains.
func (b *nftBackend) qubesGuards(ctx context.Context) (bool, error) {
	for _, f := range b.inet {
		_, err := b.reader.get(ctx, byte(f.table.Family), unix.NFT_MSG_GETCHAIN, false,
			attrString(unix.NFTA_CHAIN_TABLE, qubesTable), attrString(unix.NFTA_CHAIN_NAME, "forward"))
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("look for the chains of Qubes' own: %w", err)
		}
	}
	return true, nil
}

// loadable picks the first text that this kernel takes: the one with flowtables, if it has them. A kernel loads the
// module for it when it is asked.
func (b *nftBackend) loadable(ctx context.Context, texts []string) string {
	if len(texts) == 1 {
		return texts[0]
	}
	if err := b.runNFT(ctx, flowtableProbe, "--check"); err != nil {
		b.log.Debug("the kernel has no flowtables", "error", err)
		return texts[1]
	}
	return texts[0]
}

// Ensure implements Gate.
func (b *nftBackend) Ensure(ctx context.Context, virtual []netip.Addr) ([]string, error) {
	generation, err := b.reader.generation(ctx)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	if b.vouched(generation) {
		return nil, nil
	}
	state, err := b.read(ctx)
	if err != nil {
		return nil, err
	}
	if state.fault == "" {
		unlock, err := lockFile(ctx, b.Lock)
		if err != nil {
			return nil, fmt.Errorf("nftables: %w", err)
		}
		defer unlock()
		b.vouch(state.generation)
		return nil, nil
	}
	refused, err := refusing(virtual)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	changes, err := b.refusals.lift()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	loaded, err := b.load(ctx, func(is table) table {
		if len(is) == 0 {
			return refused
		}
		return is
	})
	return append(changes, loaded...), err
}

// load puts the ruleset and the elements into the kernel in one transaction and seals it, unless another process was
// faster. It says what it did. What is wanted may depend on the targets that there are.
func (b *nftBackend) load(ctx context.Context, wantOf func(is table) table) ([]string, error) {
	unlock, err := lockFile(ctx, b.Lock)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	defer unlock()
	b.last = nil
	state, err := b.read(ctx)
	if err != nil {
		return nil, err
	}
	want := wantOf(state.table)
	changes := describeChanges(state.table, want)
	if state.fault == "" {
		return changes, b.replaceElements(ctx, state, want)
	}
	b.last = nil
	texts, err := b.rulesetTexts(ctx)
	if err != nil {
		return nil, err
	}
	rules := b.loadable(ctx, texts)
	if err := b.loadText(ctx, rules+b.brokenSealsText()+elementsText(b.inet, want)+b.admissionsText(b.lost(ctx))); err != nil {
		return nil, fmt.Errorf("nftables: load the ruleset: %w", err)
	}
	return append([]string{"ruleset loaded: " + state.fault}, changes...), b.writeSeals(ctx, rules)
}

// lost are who must be admitted again: those of whom the kernel has lost a set, or all, when it knows nobody any more.
func (b *nftBackend) lost(ctx context.Context) []netvm.Admission {
	state, err := b.readGate(ctx)
	if err != nil {
		b.log.Debug("what cannot be read is lost too", "error", err)
		return b.recall()
	}
	nobody := len(state.union()) == 0
	return slices.DeleteFunc(slices.Clone(b.recall()), func(a netvm.Admission) bool { return !nobody && !state.lacks(a) })
}

// loadText loads rules onto whatever is there. What an older version or somebody else left may contradict ours: then
// our objects are made anew, and as the last resort our tables, each time still in one transaction. The custom chains
// survive the former and not the latter.
func (b *nftBackend) loadText(ctx context.Context, text string) error {
	err := b.runNFT(ctx, text)
	// One that had not the time to load is no reason to take anything away.
	if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	admitted, again := b.Admitted(ctx)
	if again != nil {
		b.log.Warn("nobody can say any more which vif may send from where: vifs stay closed until each is admitted again", "error", again)
	}
	text += b.admissionsText(admitted)
	b.log.Warn("ruleset does not fit onto what is there: our objects are made anew", "error", err)
	if clearing, again := b.clearingText(ctx); again == nil {
		if again = b.runNFT(ctx, clearing+text); again == nil {
			return nil
		}
		err = errors.Join(err, again)
	}
	b.log.Warn("it still does not fit: our tables are made anew, and what an admin added to them is lost", "error", err)
	var fresh strings.Builder
	for _, f := range b.families {
		fmt.Fprintf(&fresh, "add table %s %s\ndelete table %s %s\n", f.word, ownTable, f.word, ownTable)
	}
	if again := b.runNFT(ctx, fresh.String()+text); again != nil {
		return errors.Join(err, again)
	}
	return nil
}

// clearingText deletes our chains and sets, as far as they are there.
func (b *nftBackend) clearingText(ctx context.Context) (string, error) {
	var flush, remove strings.Builder
	for _, f := range b.families {
		chains, err := b.reader.get(ctx, byte(f.table.Family), unix.NFT_MSG_GETCHAIN, true)
		if err != nil {
			return "", err
		}
		for _, c := range chains {
			name := nulTerminated(c[unix.NFTA_CHAIN_NAME])
			if nulTerminated(c[unix.NFTA_CHAIN_TABLE]) == ownTable && slices.Contains(ownChains, name) {
				fmt.Fprintf(&flush, "flush chain %s %s %s\n", f.word, ownTable, name)
				fmt.Fprintf(&remove, "delete chain %s %s %s\n", f.word, ownTable, name)
			}
		}
		sets, err := b.reader.get(ctx, byte(f.table.Family), unix.NFT_MSG_GETSET, true, attrString(unix.NFTA_SET_TABLE, ownTable))
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return "", err
		}
		for _, s := range sets {
			if name := nulTerminated(s[unix.NFTA_SET_NAME]); slices.Contains(ownSets, name) {
				fmt.Fprintf(&remove, "delete set %s %s %s\n", f.word, ownTable, name)
			}
		}
	}
	return flush.String() + remove.String(), nil
}

func (b *nftBackend) runNFT(ctx context.Context, text string, options ...string) error {
	ctx, cancel := context.WithTimeout(ctx, b.patience)
	defer cancel()
	if out, err := runWith(ctx, text, b.program, append(options, "-f", "-")...); err != nil {
		return fmt.Errorf("%s -f -: %w: %s", b.program, err, out)
	}
	return nil
}

// runWith runs a program with the text as its standard input and returns all that it prints.
func runWith(ctx context.Context, text, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = strings.NewReader(text)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = cmp.Or(ctx.Err(), err) // a program that was killed says nothing of why; the context does
	}
	return strings.TrimSpace(string(out)), err
}

// brokenSealsText breaks the seals of the rules before, in nft's language.
func (b *nftBackend) brokenSealsText() string {
	var s strings.Builder
	for _, f := range b.families {
		fmt.Fprintf(&s, "flush set %s %s %s\n", f.word, ownTable, setSeal)
	}
	return s.String()
}

// elementsText writes the wanted elements in nft's language, for the transaction that loads the rules.
func elementsText(families []*nftFamily, want table) string {
	var s strings.Builder
	for _, f := range families {
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

// admissionsText writes who may send from where in nft's language.
func (b *nftBackend) admissionsText(admitted []netvm.Admission) string {
	var s strings.Builder
	for _, f := range b.families {
		for _, a := range admitted {
			if a.Addr.Is4() != f.v4 {
				continue
			}
			fmt.Fprintf(&s, "add element %s %s %s { %q . %s }\n", f.word, ownTable, setAllowed, a.Vif, a.Addr)
			if f.downstream != nil {
				fmt.Fprintf(&s, "add element %s %s %s { %s }\n", f.word, ownTable, setDownstream, a.Addr)
			}
		}
	}
	return s.String()
}
