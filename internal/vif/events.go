package vif

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"netvmd/internal/rtnetlink"
)

// vifGroups are the rtnetlink groups in which a vif can change (linux/rtnetlink.h).
const vifGroups = unix.RTMGRP_LINK | unix.RTMGRP_NEIGH | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
	unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE

// recordEvents are what can change a record: a program renames, an admin may write or delete.
const recordEvents = unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_CLOSE_WRITE | unix.IN_DELETE |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// interests are the indices of the devices that are vifs. The uplinks' neighbours come and go all the time, and are no
// reason to look.
type interests struct{ indices atomic.Pointer[map[int]bool] }

func (i *interests) set(devices map[string]*netdev) {
	indices := make(map[int]bool, len(devices))
	for _, d := range devices {
		indices[d.index] = true
	}
	i.indices.Store(&indices)
}

func (i *interests) has(index int) bool {
	indices := i.indices.Load()
	return indices == nil || (*indices)[index]
}

// concerns tells whether a message of rtnetlink may be about a vif. One that cannot be read may be.
func (i *interests) concerns(kind uint16, data []byte) bool {
	switch kind {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		attrs, ok := attributesAfter(data, unix.SizeofRtMsg)
		oif := attrs[unix.RTA_OIF]
		return !ok || len(oif) == 4 && i.has(int(binary.NativeEndian.Uint32(oif)))
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		attrs, ok := attributesAfter(data, unix.SizeofIfInfomsg)
		if _, _, err := ParseName(nulTerminated(attrs[unix.IFLA_IFNAME])); !ok || err == nil {
			return true
		}
	}
	// struct ifinfomsg, ifaddrmsg and ndmsg all have the index of the device there.
	const indexAt = 4
	return len(data) < indexAt+4 || i.has(int(binary.NativeEndian.Uint32(data[indexAt:])))
}

// attributesAfter decodes the attributes behind the fixed part of a message.
func attributesAfter(data []byte, fixed int) (map[uint16][]byte, bool) {
	if len(data) < fixed {
		return nil, false
	}
	list, err := netlink.UnmarshalAttributes(data[fixed:])
	if err != nil {
		return nil, false
	}
	out := make(map[uint16][]byte, len(list))
	for _, a := range list {
		out[a.Type] = a.Data
	}
	return out, true
}

func nulTerminated(data []byte) string {
	for i, b := range data {
		if b == 0 {
			return string(data[:i])
		}
	}
	return string(data)
}

// followKernel looks after every event of rtnetlink that concerns a vif, until the socket fails or ctx ends.
func (c *Census) followKernel(ctx context.Context) error {
	return rtnetlink.Follow(ctx, vifGroups, c.known.concerns, c.Look)
}

// followRecords looks whenever something happens in the folder of the records, which it makes.
func (c *Census) followRecords(ctx context.Context) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	queue := os.NewFile(uintptr(fd), "inotify")
	stop := context.AfterFunc(ctx, func() { _ = queue.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	dir := c.setup.records.Dir()
	events := make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		// Each time, as the folder itself may have been replaced; watching the same one again changes nothing.
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			_, err = unix.InotifyAddWatch(fd, dir, recordEvents)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("watch %s: %w", dir, err), queue.Close())
		}
		c.Look()
		if _, err := queue.Read(events); err != nil {
			return errors.Join(fmt.Errorf("inotify on %s: %w", dir, err), queue.Close())
		}
	}
}
