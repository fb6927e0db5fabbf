package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netvmd/internal/lab"
)

// changes are the kernel's messages about what changed in the netvm. The kernel queues them before it answers who
// made the change, so nothing has to be waited for.
type changes struct {
	s       *scene
	sockets map[string]int
}

// watch begins to listen.
func (s *scene) watch() *changes {
	s.t.Helper()
	c := &changes{s: s, sockets: map[string]int{}}
	s.must(s.NetVM.Do(func() error {
		for name, w := range map[string]struct{ family, groups int }{
			"rtnetlink": {unix.NETLINK_ROUTE, unix.RTMGRP_LINK | unix.RTMGRP_NEIGH | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE |
				unix.RTMGRP_IPV4_RULE | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE | 1<<(unix.RTNLGRP_IPV4_NETCONF-1) |
				1<<(unix.RTNLGRP_IPV6_NETCONF-1)},
			"nf_tables": {unix.NETLINK_NETFILTER, 1 << (unix.NFNLGRP_NFTABLES - 1)},
		} {
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, w.family)
			if err != nil {
				return err
			}
			s.t.Cleanup(func() { _ = unix.Close(fd) })
			if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: uint32(w.groups)}); err != nil {
				return err
			}
			c.sockets[name] = fd
		}
		return nil
	}))
	return c
}

// list is what was told since, a word each.
func (c *changes) list() []string {
	c.s.t.Helper()
	var out []string
	buffer := make([]byte, 1<<16)
	for name, fd := range c.sockets {
		for {
			n, _, err := unix.Recvfrom(fd, buffer, 0)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			c.s.must(err)
			messages, err := syscall.ParseNetlinkMessage(buffer[:n])
			c.s.must(err)
			for _, m := range messages {
				if m.Header.Type == unix.RTM_NEWNEIGH && m.Data[8]&unix.NUD_PERMANENT == 0 {
					continue // struct ndmsg: the state of a neighbour on the uplink
				}
				out = append(out, fmt.Sprintf("%s message of type %#x: %x", name, m.Header.Type, m.Data[:min(len(m.Data), 64)]))
			}
		}
	}
	return out
}

// brief is how long a test waits to see that something does not come.
const brief = 300 * time.Millisecond

// flow is a TCP connection of an AppVM's.
type flow struct {
	t              *testing.T
	client, server net.Conn
}

const servicePort = 7777

// connect opens a connection from an AppVM to a host of the lab.
func (s *scene) connect(from *lab.AppVM, to *lab.Host, address netip.Addr) flow {
	s.t.Helper()
	var listener net.Listener
	s.must(to.Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(address, servicePort).String())
		return err
	}))
	defer listener.Close()
	f := flow{t: s.t}
	s.must(from.Go(func() (err error) {
		f.client, err = net.DialTimeout("tcp", netip.AddrPortFrom(address, servicePort).String(), 5*time.Second)
		return err
	}))
	var err error
	f.server, err = listener.Accept()
	s.must(err)
	s.t.Cleanup(func() { f.client.Close(); f.server.Close() })
	f.mustWork()
	return f
}

// mustWork wants a byte to get through in each direction.
func (f flow) mustWork() {
	f.t.Helper()
	for name, ends := range map[string][2]net.Conn{"to": {f.client, f.server}, "from": {f.server, f.client}} {
		if err := carry(ends[0], ends[1], 5*time.Second); err != nil {
			f.t.Errorf("a byte %s %s does not arrive: %v", name, f.server.LocalAddr(), err)
		}
	}
}

// mustBeDead wants no byte to get through.
func (f flow) mustBeDead() {
	f.t.Helper()
	for name, ends := range map[string][2]net.Conn{"to": {f.client, f.server}, "from": {f.server, f.client}} {
		if err := carry(ends[0], ends[1], brief); err == nil {
			f.t.Errorf("a byte %s %s arrives", name, f.server.LocalAddr())
		}
	}
}

func carry(from, to net.Conn, patience time.Duration) error {
	if err := errors.Join(from.SetDeadline(time.Now().Add(patience)), to.SetDeadline(time.Now().Add(patience))); err != nil {
		return err
	}
	if _, err := from.Write([]byte{'x'}); err != nil {
		return err
	}
	_, err := io.ReadFull(to, make([]byte, 1))
	return err
}
