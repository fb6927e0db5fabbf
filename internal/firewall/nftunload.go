package firewall

import (
	"context"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// remove implements remover: our tables go, with all that an admin added to them.
func (b *nftBackend) remove(ctx context.Context) (changes []string, err error) {
	objects, err := b.readObjects(ctx)
	if err != nil {
		return nil, fmt.Errorf("nftables: read the tables: %w", err)
	}
	b.last, b.gate = nil, nil
	err = b.transact(func(c *nftables.Conn) error {
		for _, f := range b.families {
			for _, t := range objects.tables {
				if t[messageFamily][0] == byte(f.table.Family) && nulTerminated(t[unix.NFTA_TABLE_NAME]) == ownTable {
					c.DelTable(f.table)
					changes = append(changes, fmt.Sprintf("table %s %s deleted", f.word, ownTable))
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("nftables: delete the tables: %w", err)
	}
	return changes, nil
}
