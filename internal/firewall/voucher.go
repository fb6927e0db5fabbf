package firewall

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// A voucher says that our rules were found whole at some generation of nf_tables. Every transaction of anybody's makes
// a new generation, so while the kernel has that one, nothing can have changed: of the many hotplug programs, each for
// one vif, only the first looks through all rules. It stands in the lock file; whoever holds the lock writes it.

// voucher is the text for a generation, in this network namespace, of rules that this program would load.
func (b *nftBackend) voucher(generation uint32) (string, error) {
	var namespace unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &namespace); err != nil {
		return "", fmt.Errorf("look at the own network namespace: %w", err)
	}
	rules := sha256.Sum256([]byte(ownText + baseText + flowtableText + b.Base + b.Flowtable))
	return fmt.Sprintf("nf_tables generation %d of namespace %d with rules %x\n", generation, namespace.Ino, rules[:8]), nil
}

// vouched tells whether the rules were found whole at that generation. What cannot be read vouches for nothing.
func (b *nftBackend) vouched(generation uint32) bool {
	if b.Lock == "" {
		return false
	}
	want, err := b.voucher(generation)
	if err != nil {
		return false
	}
	text, err := os.ReadFile(b.Lock)
	return err == nil && string(text) == want
}

// vouch writes the voucher; the lock is held. Without one, the next program looks at the rules itself.
func (b *nftBackend) vouch(generation uint32) {
	if b.Lock == "" {
		return
	}
	text, err := b.voucher(generation)
	if err == nil {
		err = os.WriteFile(b.Lock, []byte(text), 0o600)
	}
	if err != nil {
		b.log.Debug("the next vif takes longer", "error", err)
	}
}

// transactVouched is transact for what changes none of our rules; the lock is held. Where the rules were whole before,
// they still are.
func (b *nftBackend) transactVouched(ctx context.Context, fill func(*nftables.Conn) error) error {
	before, err := b.reader.generation(ctx)
	if err != nil {
		return err
	}
	whole := b.last != nil && b.last.generation == before && b.last.fault == "" || b.vouched(before)
	if err := b.transact(fill); err != nil {
		b.last = nil
		return err
	}
	after, err := b.reader.generation(ctx)
	if err != nil || after != before {
		b.last = nil
	}
	// Exactly one generation later, nobody else wrote in between.
	if err == nil && whole && after == before+1 {
		b.vouch(after)
	}
	return err
}
