package dom0

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	// comes is how long a card may take, until it is there and the netvm's hotplug script is done: Xen kills a script after
	// as long (libxl, LIBXL_HOTPLUG_TIMEOUT).
	comes = 40 * time.Second
	// goes is how long one may take that was detached: libxl itself waits for 10 s (LIBXL_DESTROY_TIMEOUT).
	goes = 15 * time.Second
)

// interfaceOf finds dom0's interface with a MAC; nil if there is none.
func interfaceOf(mac string) (netlink.Link, error) {
	wanted, err := net.ParseMAC(mac)
	if err != nil {
		return nil, err
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	var found netlink.Link
	for _, l := range links {
		if !bytes.Equal(l.Attrs().HardwareAddr, wanted) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("two interfaces have the MAC %s: %s and %s", mac, found.Attrs().Name, l.Attrs().Name)
		}
		found = l
	}
	return found, nil
}

// awaitCard waits until the card is there and the netvm forwards for it.
func (t *tool) awaitCard(ctx context.Context, a attach) (netlink.Link, error) {
	var link netlink.Link
	err := t.await(ctx, comes, []string{frontends, backends(a.Backend.ID)}, func() (string, error) {
		card, err := t.store.card(ctx, a.MAC)
		if err != nil {
			return "", err
		}
		if card == "" {
			return "XenStore has no card with this MAC", nil
		}
		if lack, err := t.store.lack(ctx, a.Backend, card); err != nil || lack != "" {
			return lack, err
		}
		if link, err = interfaceOf(a.MAC); err != nil || link != nil {
			return "", err
		}
		return "dom0's kernel has no interface with this MAC: is its module xen-netfront loaded?", nil
	})
	if err != nil {
		return nil, fmt.Errorf("wait for the card %s: %w", a.MAC, err)
	}
	return link, nil
}

// awaitGone waits until nothing is left of a card.
func (t *tool) awaitGone(ctx context.Context, mac string) error {
	err := t.await(ctx, goes, []string{frontends}, func() (string, error) {
		if card, err := t.store.card(ctx, mac); err != nil || card != "" {
			return "XenStore still has it", err
		}
		if link, err := interfaceOf(mac); err != nil || link != nil {
			return "dom0's kernel still has its interface", err
		}
		return "", nil
	})
	if err != nil {
		return fmt.Errorf("wait until the card %s is gone: %w", mac, err)
	}
	return nil
}

// await looks again whenever an interface or one of these nodes may have changed, until nothing is lacking.
func (t *tool) await(ctx context.Context, patience time.Duration, paths []string, lacking func() (string, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	links, unsubscribe := make(chan netlink.LinkUpdate), make(chan struct{})
	var lost error
	if err := netlink.LinkSubscribeWithOptions(links, unsubscribe, netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) { lost = err },
	}); err != nil {
		return fmt.Errorf("follow the network interfaces: %w", err)
	}
	defer func() {
		close(unsubscribe)
		for range links { // what is under way has to be taken before it ends
		}
	}()
	nodes, err := t.store.watch(ctx, paths...)
	if err != nil {
		return err
	}
	for {
		lack, err := lacking()
		if err != nil || lack == "" {
			return err
		}
		select {
		case _, open := <-links:
			if !open {
				return fmt.Errorf("the network interfaces are not followed any more: %w", lost)
			}
		case <-nodes:
		case <-t.store.Done():
			return t.store.Err()
		case <-ctx.Done():
			return fmt.Errorf("%s (%w)", lack, ctx.Err())
		}
	}
}
