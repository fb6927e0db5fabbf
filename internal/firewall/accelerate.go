package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// flowtableName is that in flowtable.nft.
const flowtableName = "accelerated"

// Accelerate implements Gate.
func (b *nftBackend) Accelerate(ctx context.Context, devices []string) error {
	if b.Flowtable == never {
		return nil
	}
	for _, f := range b.inet {
		have, err := b.accelerated(ctx, f)
		if errors.Is(err, unix.ENOENT) {
			continue // the kernel has no flowtables
		}
		if err != nil {
			return fmt.Errorf("nftables: read the flowtable of table %s %s: %w", f.word, ownTable, err)
		}
		missing := slices.DeleteFunc(slices.Clone(devices), func(d string) bool { return slices.Contains(have, d) })
		if len(missing) == 0 {
			continue
		}
		err = b.extendFlowtable(ctx, f, missing)
		if errors.Is(err, unix.ENOENT) {
			b.log.Debug("a device went before its flows were accelerated", "devices", missing)
			continue
		}
		if err != nil {
			return fmt.Errorf("nftables: add %q to the flowtable of table %s %s: %w", missing, f.word, ownTable, err)
		}
	}
	return nil
}

// extendFlowtable adds devices to the flowtable of a family.
func (b *nftBackend) extendFlowtable(ctx context.Context, f *nftFamily, devices []string) error {
	unlock, err := lockFile(ctx, b.Lock)
	if err != nil {
		return err
	}
	defer unlock()
	return b.transactVouched(ctx, func(c *nftables.Conn) error {
		c.AddFlowtable(&nftables.Flowtable{
			Table: f.table, Name: flowtableName, Devices: devices,
			Hooknum: nftables.FlowtableHookIngress, Priority: nftables.FlowtablePriorityFilter,
		})
		return nil
	})
}

// accelerated lists the devices of the flowtable of a family.
func (b *nftBackend) accelerated(ctx context.Context, f *nftFamily) ([]string, error) {
	answers, err := b.reader.get(ctx, byte(f.table.Family), unix.NFT_MSG_GETFLOWTABLE, false,
		attrString(nftables.NFTA_FLOWTABLE_TABLE, ownTable), attrString(nftables.NFTA_FLOWTABLE_NAME, flowtableName))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, a := range answers {
		hook, err := decodeAttributes(a[nftables.NFTA_FLOWTABLE_HOOK])
		if err != nil {
			return nil, err
		}
		if len(hook[nftables.NFTA_FLOWTABLE_DEVS]) == 0 {
			continue
		}
		devices, err := netlink.UnmarshalAttributes(hook[nftables.NFTA_FLOWTABLE_DEVS])
		if err != nil {
			return nil, err
		}
		for _, d := range devices {
			out = append(out, nulTerminated(d.Data))
		}
	}
	return out, nil
}

// Accelerate implements Gate: iptables knows no flowtables.
func (b *iptBackend) Accelerate(context.Context, []string) error { return nil }
