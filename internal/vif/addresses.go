// Package vif looks after what belongs to network devices in the kernel: addresses, links, routes and
// neighbours, over netlink.
package vif

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"

	"netvmd/internal/rtnetlink"
)

// dumpAttempts bounds how often a dump that the kernel interrupted is begun again at once.
const dumpAttempts = 10

// OwnAddresses follows the addresses of this network namespace over rtnetlink. An event only says that
// something is different: the addresses are then dumped again in whole.
type OwnAddresses struct {
	log     *slog.Logger
	changed chan struct{}

	dumping sync.Mutex // so that of two dumps the newer one counts
	mu      sync.Mutex
	addrs   []netip.Addr
	read    bool // was dumped once
}

// NewOwnAddresses returns one that follows nothing until Run; a nil log logs to slog.Default.
func NewOwnAddresses(log *slog.Logger) *OwnAddresses {
	if log == nil {
		log = slog.Default()
	}
	return &OwnAddresses{log: log, changed: make(chan struct{}, 1)}
}

// Changed has a token when the set of addresses is another one than last taken. The first comes after the first
// dump.
func (o *OwnAddresses) Changed() <-chan struct{} { return o.changed }

// Take returns the addresses, sorted, without zones; the caller must not change the slice.
func (o *OwnAddresses) Take() []netip.Addr {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.addrs
}

// Refresh reads the addresses again; a token follows only if they are others. The kernel answers at once, so it does not
// wait for ctx.
func (o *OwnAddresses) Refresh(context.Context) error { return o.dump() }

// Run follows until ctx ends, and returns nil then. Trouble with rtnetlink is logged and overcome.
func (o *OwnAddresses) Run(ctx context.Context) error {
	rtnetlink.Persist(ctx, o.log, "own addresses", o.follow)
	return nil
}

// follow subscribes, dumps, and dumps again after each event, until the subscription ends.
func (o *OwnAddresses) follow(ctx context.Context) error {
	done := make(chan struct{})
	updates := make(chan netlink.AddrUpdate, 64)
	failed := make(chan error, 1)
	options := netlink.AddrSubscribeOptions{ErrorCallback: func(err error) {
		select {
		case failed <- err:
		default: // one is enough to begin anew
		}
	}}
	if err := netlink.AddrSubscribeWithOptions(updates, done, options); err != nil {
		close(done)
		return fmt.Errorf("subscribe to rtnetlink's addresses: %w", err)
	}
	defer func() {
		close(done)
		go drain(updates) // until the subscription's goroutine notices and closes it
	}()
	for {
		if err := o.dump(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("follow rtnetlink's addresses: %w", err)
		case _, open := <-updates:
			if !open {
				return errors.New("follow rtnetlink's addresses: subscription ended")
			}
		}
		for len(updates) > 0 { // a burst needs one dump
			<-updates
		}
	}
}

func drain[T any](updates <-chan T) {
	for range updates {
		continue
	}
}

// dump reads all addresses and gives a token if the set is another one.
func (o *OwnAddresses) dump() error {
	o.dumping.Lock()
	defer o.dumping.Unlock()
	addrs, err := listAddresses()
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.read && slices.Equal(addrs, o.addrs) {
		return nil
	}
	o.addrs, o.read = addrs, true
	select {
	case o.changed <- struct{}{}:
	default: // the last one was not received yet
	}
	return nil
}

func listAddresses() ([]netip.Addr, error) {
	var list []netlink.Addr
	var err error
	for range dumpAttempts {
		if list, err = netlink.AddrList(nil, netlink.FAMILY_ALL); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("dump the addresses over rtnetlink: %w", err)
	}
	addrs := make([]netip.Addr, 0, len(list))
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}
