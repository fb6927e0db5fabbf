package dbus

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"

	"netvmd/internal/systembus"
)

// HoldDNSOverride keeps an override in force until ctx ends, also over restarts of netvmd and of the bus. inForce is called
// each time that the kernel has it. It returns nil when ctx ended, and an error when netvmd refuses it; one that has too
// much to do, or takes too long, is asked again.
func HoldDNSOverride(ctx context.Context, servers []netip.Addr, inForce func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var refused error
	systembus.Persist(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)), func(ctx context.Context) (bool, error) {
		connected, err := hold(ctx, servers, inForce)
		if isRefusal(err) {
			refused = err
			cancel()
		}
		return connected, err
	})
	return refused
}

// isRefusal tells a word of netvmd, which will be the same the next time, from a netvmd or a bus that is away.
func isRefusal(err error) bool {
	var e Error
	return errors.Is(err, ErrNotAllowed) || errors.As(err, &e) && e.Name != LimitsExceeded && e.Name != Timeout
}

// hold sets the override, over one connection, whenever netvmd appears.
func hold(ctx context.Context, servers []netip.Addr, inForce func()) (connected bool, err error) {
	c, err := Connect(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }() // which ends the override
	signals, err := c.follow(ctx)
	if err != nil {
		return false, err
	}
	for set := any(""); ; {
		if owner := c.owner.Load(); owner != "" && owner != set {
			err := c.SetDNSOverride(ctx, servers, false)
			if err == nil {
				set = owner
				inForce()
			} else if !errors.Is(err, ErrNotRunning) {
				return true, err
			}
		}
		sig, err := next(ctx, signals)
		if err != nil {
			return true, err
		}
		c.learn(sig)
	}
}
