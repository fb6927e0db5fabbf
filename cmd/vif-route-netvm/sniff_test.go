package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"netvmd/internal/lab"
)

// Every packet of these tests carries a token, so that it is known wherever it arrives.
var tokens = regexp.MustCompile(`<[a-z0-9 :.-]+>`)

// ear remembers the tokens that somebody hears.
type ear struct {
	t     *testing.T
	where string

	mu    sync.Mutex
	heard []string
	more  chan struct{} // closed and made anew with each token
}

func (s *scene) ear(where string) *ear {
	return &ear{t: s.t, where: where, more: make(chan struct{})}
}

func (e *ear) hear(data []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, token := range tokens.FindAll(append(data, arpAnswer(data)...), -1) {
		e.heard = append(e.heard, string(token))
		close(e.more)
		e.more = make(chan struct{})
	}
}

// arpAnswer is a token for an ARP answer (RFC 826): who is told, and whose address.
func arpAnswer(frame []byte) string {
	if len(frame) < 42 || !bytes.Equal(frame[12:14], []byte{8, 6}) || !bytes.Equal(frame[20:22], []byte{0, 2}) {
		return ""
	}
	sender, target := netip.AddrFrom4([4]byte(frame[28:32])), netip.AddrFrom4([4]byte(frame[38:42]))
	return fmt.Sprintf("<%s hears of %s>", target, sender)
}

// await waits until the token was heard.
func (e *ear) await(token string) {
	e.t.Helper()
	patience := time.After(5 * time.Second)
	for {
		e.mu.Lock()
		heard, more := strings.Join(e.heard, " "), e.more
		e.mu.Unlock()
		if strings.Contains(heard, token) {
			return
		}
		select {
		case <-more:
		case <-patience:
			e.t.Fatalf("%s never arrived at %s, which heard %s", token, e.where, heard)
		}
	}
}

// mustNotHave wants that nothing was heard so far that contains the word.
func (e *ear) mustNotHave(word string) {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, token := range e.heard {
		if strings.Contains(token, word) {
			e.t.Errorf("%s arrived at %s", token, e.where)
		}
	}
}

// tap hears every frame that comes into a host over a device.
func (s *scene) tap(where string, h *lab.Host, device string) *ear {
	s.t.Helper()
	e := s.ear(where)
	var fd int
	s.must(h.Do(func() error {
		link, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}),
		)
	}))
	end, ended := make(chan struct{}), make(chan struct{})
	s.t.Cleanup(func() { close(end); <-ended; _ = unix.Close(fd) })
	go func() {
		defer close(ended)
		buffer := make([]byte, 1<<16)
		for {
			select {
			case <-end:
				return
			default:
			}
			if n, from, err := unix.Recvfrom(fd, buffer, 0); err == nil {
				if l, is := from.(*unix.SockaddrLinklayer); is && l.Pkttype != unix.PACKET_OUTGOING {
					e.hear(buffer[:n])
				}
			}
		}
	}()
	return e
}

// socket hears what arrives at a socket of the netvm's.
func (s *scene) socket(e *ear, network, address string) {
	s.t.Helper()
	var conn net.PacketConn
	s.must(s.NetVM.Do(func() (err error) {
		conn, err = net.ListenPacket(network, address)
		return err
	}))
	s.t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buffer := make([]byte, 1<<16)
		for {
			n, _, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			e.hear(buffer[:n])
		}
	}()
}

// door is a listening TCP socket of the netvm's: whoever gets in says so.
func (s *scene) door(e *ear, network, address string) {
	s.t.Helper()
	var listener net.Listener
	s.must(s.NetVM.Do(func() (err error) {
		listener, err = net.Listen(network, address)
		return err
	}))
	s.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			e.hear([]byte("<connection to " + conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String() + ">"))
			_ = conn.Close()
		}
	}()
}

// udpPorts and tcpPort are where the netvm's sockets listen in these tests.
var udpPorts = []string{"53", "67", "68", "123", "546", "547", "5353", "7777"}

const tcpPort = "8080"

// netvmSockets hears what arrives at sockets of all kinds in the netvm.
func (s *scene) netvmSockets() *ear {
	e := s.ear("a socket of the netvm")
	for _, port := range udpPorts {
		s.socket(e, "udp4", "0.0.0.0:"+port)
		s.socket(e, "udp6", "[::]:"+port)
	}
	s.socket(e, "ip4:icmp", "0.0.0.0")
	s.socket(e, "ip6:ipv6-icmp", "::")
	s.door(e, "tcp4", "0.0.0.0:"+tcpPort)
	s.door(e, "tcp6", "[::]:"+tcpPort)
	return e
}

// allow opens a chain of the admin's.
func (s *scene) allow(chain string) {
	s.t.Helper()
	command := map[lab.Backend]string{
		lab.NFTables:       "nft add rule ip netvmd CHAIN accept; nft add rule ip6 netvmd CHAIN accept",
		lab.IPTablesNFT:    "iptables-nft -A CHAIN -j ACCEPT; ip6tables-nft -A CHAIN -j ACCEPT",
		lab.IPTablesLegacy: "iptables-legacy -A CHAIN -j ACCEPT; ip6tables-legacy -A CHAIN -j ACCEPT",
	}[s.NetVM.Backend()]
	s.netvm(strings.ReplaceAll(command, "CHAIN", chain))
}

// mac is a card's address.
func (s *scene) mac(text string) net.HardwareAddr {
	s.t.Helper()
	mac, err := net.ParseMAC(text)
	s.must(err)
	return mac
}

// datagram is a UDP packet of an AppVM's to the netvm's end of its card.
func (s *scene) datagram(a *lab.AppVM, from, to netip.Addr, port uint16, token string) lab.Packet {
	s.t.Helper()
	return lab.Packet{FromMAC: s.mac(a.Card.MAC), ToMAC: s.mac(vifMAC), From: from, To: to,
		Body: lab.UDP{FromPort: 40000, ToPort: port, Payload: []byte(token)}}
}

// vifMAC is that of the netvm's end of every vif.
const vifMAC = "fe:ff:ff:ff:ff:ff"
