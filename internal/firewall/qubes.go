package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// OwnBase implements Backend.
func (b *nftBackend) OwnBase(ctx context.Context) (bool, error) { return b.wantsBase(ctx) }

// OwnBase implements Backend.
func (b *iptBackend) OwnBase(ctx context.Context) (bool, error) {
	states, err := b.read(ctx)
	return slices.ContainsFunc(states, func(s *iptState) bool { return s.base }), err
}

// qubesDNATChain is where Qubes' own scripts translate the virtual DNS addresses.
const qubesDNATChain = "dnat-dns"

// QubesTranslations counts the rules of Qubes' own table that translate DNS, in nf_tables. Ours come first, so they do
// nothing while ours are there.
func QubesTranslations(ctx context.Context) (int, error) {
	r := &nftReader{}
	rules, err := r.get(ctx, unix.NFPROTO_IPV4, unix.NFT_MSG_GETRULE, true,
		attrString(unix.NFTA_RULE_TABLE, qubesTable), attrString(unix.NFTA_RULE_CHAIN, qubesDNATChain))
	if r.conn != nil {
		err = errors.Join(err, r.conn.Close())
	}
	if noNFTables(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("nftables: look for the DNS rules of Qubes: %w", err)
	}
	return len(rules), nil
}

// noNFTables tells what a kernel without nf_tables says, nfnetlink knowing no such subsystem or not being there, and what
// any says of a table that does not exist.
func noNFTables(err error) bool {
	return slices.ContainsFunc([]error{unix.EINVAL, unix.ENOENT, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT},
		func(none error) bool { return errors.Is(err, none) })
}
