package firewall

import (
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

// Counters implements Backend: they are the named counters of our tables.
func (b *nftBackend) Counters(ctx context.Context) ([]netvm.Counter, error) {
	var out []netvm.Counter
	for _, f := range b.families {
		objects, err := b.reader.get(ctx, byte(f.table.Family), unix.NFT_MSG_GETOBJ, true, attrString(unix.NFTA_OBJ_TABLE, ownTable))
		if err != nil {
			return nil, fmt.Errorf("nftables: read the counters of table %s %s: %w", f.word, ownTable, err)
		}
		for _, o := range objects {
			c, ours, err := counterOf(o)
			if err != nil {
				return nil, fmt.Errorf("nftables: read the counters of table %s %s: %w", f.word, ownTable, err)
			}
			if ours {
				c.Table = f.word + " " + ownTable
				out = append(out, c)
			}
		}
	}
	return out, nil
}

// counterOf decodes an object of nf_tables, if it is a counter of a table of ours.
func counterOf(object attributes) (netvm.Counter, bool, error) {
	kind := object[unix.NFTA_OBJ_TYPE]
	if nulTerminated(object[unix.NFTA_OBJ_TABLE]) != ownTable || len(kind) != 4 ||
		binary.BigEndian.Uint32(kind) != unix.NFT_OBJECT_COUNTER {
		return netvm.Counter{}, false, nil
	}
	data, err := decodeAttributes(object[unix.NFTA_OBJ_DATA])
	if err != nil {
		return netvm.Counter{}, false, err
	}
	packets, bytes := data[unix.NFTA_COUNTER_PACKETS], data[unix.NFTA_COUNTER_BYTES]
	if len(packets) != 8 || len(bytes) != 8 {
		return netvm.Counter{}, false, fmt.Errorf("counter %q without numbers", nulTerminated(object[unix.NFTA_OBJ_NAME]))
	}
	return netvm.Counter{
		Name:    nulTerminated(object[unix.NFTA_OBJ_NAME]),
		Packets: binary.BigEndian.Uint64(packets),
		Bytes:   binary.BigEndian.Uint64(bytes),
	}, true, nil
}
