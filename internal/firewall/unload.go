package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"netvmd/internal/netvm"
)

// ErrNeeded is wrapped by Unload's error when AppVMs have no other rules than ours.
var ErrNeeded = errors.New("nothing else would guard these AppVMs")

// remover is what Unload wants of a backend. The lock is held meanwhile.
type remover interface {
	Name() string
	Admitted(ctx context.Context) ([]netvm.Admission, error)
	Strays(ctx context.Context) ([]netvm.Admission, error)
	// qubesGuards tells whether the base firewall of Qubes is loaded.
	qubesGuards(ctx context.Context) (bool, error)
	// remove deletes what is ours, whatever of it there is, and says what that was, a short sentence each.
	remove(ctx context.Context) (changes []string, err error)
}

// Unload takes out of the kernel all that is netvmd's: with nftables in one transaction, with iptables in one for each
// table. It does so for both, as rules may be left from before firewall.backend was another. What Qubes' own sets know of
// our vifs stays. The limits of ICMP errors become what they were before. It returns what it changed, a short sentence
// each; none, when nothing was there.
//
// While a vif is admitted that is still there, it changes nothing and gives an error that is ErrNeeded, as the AppVM would
// be open or cut off; but not so where the base firewall of Qubes is loaded, which knows the vif too, nor with force.
func Unload(ctx context.Context, o Options, force bool) (changes []string, err error) {
	backends, err := openEvery(ctx, o)
	if err != nil {
		return nil, err
	}
	unlock, err := lockExisting(ctx, o.Lock)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return unload(ctx, backends, newRefusals(o), force)
}

// openEvery opens each backend that this machine has. One that is named must open.
func openEvery(ctx context.Context, o Options) (backends []remover, err error) {
	var failures []error
	for _, of := range []struct {
		kind string
		open func() (remover, error)
	}{
		{KindNFTables, func() (remover, error) { return newNFTables(ctx, o) }},
		{KindIPTables, func() (remover, error) { return newIPTables(ctx, "", o) }},
	} {
		b, err := of.open()
		if err == nil {
			backends = append(backends, b)
			continue
		}
		if o.Kind == of.kind {
			return nil, err
		}
		failures = append(failures, err)
	}
	if len(backends) == 0 {
		return nil, fmt.Errorf("no firewall to work with: %w", errors.Join(failures...))
	}
	return backends, nil
}

func unload(ctx context.Context, backends []remover, limits refusals, force bool) (changes []string, err error) {
	for _, b := range backends {
		if force {
			break
		}
		if err := needed(ctx, b); err != nil {
			return nil, err
		}
	}
	for _, b := range backends {
		gone, err := b.remove(ctx)
		if err != nil {
			return changes, err
		}
		for _, g := range gone {
			changes = append(changes, b.Name()+": "+g)
		}
	}
	if len(changes) == 0 {
		return nil, nil
	}
	return append(changes, limits.restore()...), nil
}

// needed gives an error that names those who would be left without a firewall.
func needed(ctx context.Context, b remover) error {
	theirs, err := b.qubesGuards(ctx)
	if err != nil || theirs {
		return err
	}
	admitted, err := b.Admitted(ctx)
	if err != nil {
		return err
	}
	strays, err := b.Strays(ctx)
	if err != nil {
		return err
	}
	var needy []string
	for _, a := range slices.Concat(admitted, strays) {
		// A domain that died without a word needs nothing any more.
		_, err := netlink.LinkByName(a.Vif)
		if errors.As(err, &netlink.LinkNotFoundError{}) || slices.Contains(needy, a.Vif) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look for %s: %w", a.Vif, err)
		}
		needy = append(needy, a.Vif)
	}
	if len(needy) > 0 {
		slices.Sort(needy)
		return fmt.Errorf("%s: %w", strings.Join(needy, ", "), ErrNeeded)
	}
	return nil
}
