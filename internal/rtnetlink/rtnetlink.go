// Package rtnetlink follows what the kernel says of devices, addresses, routes and neighbours (rtnetlink(7)). Events only
// say that something may be different: who follows them looks again.
package rtnetlink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// resubscribePause is the wait before the next attempt after a subscription that did not last as long.
const resubscribePause = time.Second

// Follow calls look when the subscription to groups (RTMGRP_ of linux/rtnetlink.h) stands, when events were lost, and for
// each message that concerns says yes to, until the socket fails or ctx ends. It follows the network namespace of the
// calling thread.
func Follow(ctx context.Context, groups uint32, concerns func(kind uint16, data []byte) bool, look func()) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: groups})
	if err != nil {
		return fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	// A deadline in the past ends the Receive that waits. Setting it fails only on a closed socket, which ends it too.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	look() // whatever happened before the subscription stood
	for {
		messages, err := conn.Receive()
		if errors.Is(err, unix.ENOBUFS) && ctx.Err() == nil {
			look() // events were lost; ours may be among them
			continue
		}
		if err != nil {
			return errors.Join(fmt.Errorf("receive from rtnetlink: %w", err), conn.Close())
		}
		for _, m := range messages {
			if concerns(uint16(m.Header.Type), m.Data) {
				look()
			}
		}
	}
}

// Persist subscribes anew, whenever a subscription ends, until ctx does; what names it in the log.
func Persist(ctx context.Context, log *slog.Logger, what string, follow func(context.Context) error) {
	for {
		began := time.Now()
		err := follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > resubscribePause {
			// Above all ENOBUFS: the kernel had more events than the socket could hold. Looking again mends it.
			log.Debug("a subscription was lost, beginning anew", "what", what, "error", err)
			continue
		}
		log.Warn("not followed, trying again", "what", what, "error", err, "pause", resubscribePause)
		if !Sleep(ctx, resubscribePause) {
			return
		}
	}
}

// Sleep returns false when ctx ends first.
func Sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
