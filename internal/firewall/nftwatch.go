package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch implements Backend.
func (b *nftBackend) Watch(ctx context.Context, hint func(who string)) error {
	if err := watchNFTables(ctx, map[nftTableName]bool{
		{unix.NFPROTO_IPV4, ownTable}: true,
		{unix.NFPROTO_IPV6, ownTable}: true,
		{unix.NFPROTO_ARP, ownTable}:  true,
		// They hold our vifs too, and the base firewall depends on them.
		{unix.NFPROTO_IPV4, qubesTable}: true,
		{unix.NFPROTO_IPV6, qubesTable}: true,
	}, hint); err != nil {
		return fmt.Errorf("nftables: watch for changes: %w", err)
	}
	return nil
}

// nftTableName names a table of nf_tables.
type nftTableName struct {
	family byte
	name   string
}

// watchNFTables follows what nf_tables multicasts about every transaction, and hints when one touched a table of ours.
func watchNFTables(ctx context.Context, ours map[nftTableName]bool, hint func(who string)) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("open a netlink socket: %w", err)
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return errors.Join(fmt.Errorf("join the group of nf_tables: %w", err), conn.Close())
	}
	// A deadline in the past ends the Receive that waits. Setting it fails only on a closed socket, which ends it too.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	hint("") // whatever happened before the watch stood
	var seen transaction
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return conn.Close()
		case errors.Is(err, unix.ENOBUFS):
			// Messages were lost; ours may be among them.
			seen = transaction{}
			hint("")
			continue
		case err != nil:
			return errors.Join(fmt.Errorf("receive from nf_tables: %w", err), conn.Close())
		}
		for _, m := range messages {
			if who, done := seen.take(uint16(m.Header.Type), m.Data, ours); done {
				hint(who)
			}
		}
	}
}

// transaction gathers the messages of one transaction: those about its objects, then one about its generation.
type transaction struct{ touched bool }

// take adds a message. It returns true at the end of a transaction that touched one of our tables, with the process
// that made it.
func (t *transaction) take(kind uint16, data []byte, ours map[nftTableName]bool) (who string, done bool) {
	if kind>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return "", false
	}
	attrs, err := decodeMessage(data)
	if err != nil {
		// What cannot be read may have been ours.
		t.touched = true
		return "", false
	}
	if kind&0xff != unix.NFT_MSG_NEWGEN {
		// The table's name is attribute 1 of every nf_tables object (NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_SET_TABLE …).
		t.touched = t.touched || ours[nftTableName{data[0], nulTerminated(attrs[unix.NFTA_TABLE_NAME])}]
		return "", false
	}
	done, t.touched = t.touched, false
	return processOf(attrs), done
}

// processOf names the process that a message about a generation tells of.
func processOf(attrs attributes) string {
	name, pid := nulTerminated(attrs[unix.NFTA_GEN_PROC_NAME]), attrs[unix.NFTA_GEN_PROC_PID]
	if name == "" || len(pid) != 4 {
		return ""
	}
	return fmt.Sprintf("%s (pid %d)", name, binary.BigEndian.Uint32(pid))
}
