package firewall

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// testPort is where the tests send to.
const testPort = 4444

// packet is an IP packet to be sent as it is, whatever the sender's kernel thinks of it.
type packet struct {
	from, to netip.Addr
	protocol byte
	body     []byte
	hops     byte // 0 = 64
}

// token marks a body, so that it is known wherever it arrives.
func token(word string) string { return "<" + word + ">" }

var tokens = regexp.MustCompile(`<[ -;=?-~]+>`)

// datagram is a UDP packet with a token. Each has a source port of its own, so that it begins a flow of its own.
func (n *topology) datagram(from, to netip.Addr, word string) packet {
	n.sent++
	udp := binary.BigEndian.AppendUint16(nil, 20000+n.sent)
	udp = binary.BigEndian.AppendUint16(udp, testPort)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(token(word))))
	udp = append(udp, 0, 0)
	p := packet{from: from, to: to, protocol: unix.IPPROTO_UDP, body: append(udp, token(word)...)}
	return p.sum(6)
}

// ping is an ICMP echo request with a token.
func ping(from, to netip.Addr, word string) packet {
	p := packet{from: from, to: to, protocol: unix.IPPROTO_ICMPV6, body: append([]byte{128, 0, 0, 0, 0, 1, 0, 1}, token(word)...)}
	if to.Is4() {
		p.protocol, p.body[0] = unix.IPPROTO_ICMP, 8
	}
	return p.sum(2)
}

// neighbour is an NDP message that speaks of the address about, with a token as its option's content.
func neighbour(kind byte, from, to, about netip.Addr) packet {
	body := append([]byte{kind, 0, 0, 0, 0x20, 0, 0, 0}, about.AsSlice()...)
	p := packet{from: from, to: to, protocol: unix.IPPROTO_ICMPV6, body: body, hops: 255}
	return p.sum(2)
}

// sum writes the checksum of the body at that place (RFC 1071); that of ICMP over IPv4 covers no addresses.
func (p packet) sum(at int) packet {
	all := p.body
	if p.protocol != unix.IPPROTO_ICMP {
		all = append(append(p.from.AsSlice(), p.to.AsSlice()...), 0, p.protocol, byte(len(p.body)>>8), byte(len(p.body)))
		all = append(all, p.body...)
	}
	binary.BigEndian.PutUint16(p.body[at:], checksum(all))
	return p
}

func checksum(data []byte) uint16 {
	var sum uint32
	for i, b := range data {
		sum += uint32(b) << (8 * (1 - i%2))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// bytes is the packet with its IP header.
func (p packet) bytes() []byte {
	hops := p.hops
	if hops == 0 {
		hops = 64
	}
	if p.from.Is4() {
		header := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, hops, p.protocol, 0, 0}
		binary.BigEndian.PutUint16(header[2:], uint16(20+len(p.body)))
		header = append(append(header, p.from.AsSlice()...), p.to.AsSlice()...)
		binary.BigEndian.PutUint16(header[10:], checksum(header))
		return append(header, p.body...)
	}
	header := []byte{0x60, 0, 0, 0, byte(len(p.body) >> 8), byte(len(p.body)), p.protocol, hops}
	return append(append(append(header, p.from.AsSlice()...), p.to.AsSlice()...), p.body...)
}

// send sends packets out of the eth0 of a namespace, to the netvm's end of the wire.
func (n *topology) send(from netns.NsHandle, packets ...packet) {
	n.t.Helper()
	device := map[netns.NsHandle]string{n.client: "vif1.0", n.other: "vif2.0", n.server: "up0"}[from]
	link, err := netlink.LinkByName(device)
	must(n.t, err)
	n.in(from, func() {
		eth, err := net.InterfaceByName("eth0")
		must(n.t, err)
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		must(n.t, err)
		defer unix.Close(fd)
		for _, p := range packets {
			to := &unix.SockaddrLinklayer{Ifindex: eth.Index, Halen: 6, Protocol: networkOrder(unix.ETH_P_IPV6)}
			if p.from.Is4() {
				to.Protocol = networkOrder(unix.ETH_P_IP)
			}
			copy(to.Addr[:], link.Attrs().HardwareAddr)
			must(n.t, unix.Sendto(fd, p.bytes(), 0, to))
		}
	})
}

func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// arrival is a token that arrived somewhere, and the address that its packet came from.
type arrival struct {
	from  netip.Addr
	token string
}

// observer tells what arrives at a place.
type observer struct {
	t    testing.TB
	name string
	seen chan arrival
}

// tap observes every packet that comes to the eth0 of a namespace, but for ICMP's errors: these quote what was sent.
func (n *topology) tap(name string, ns netns.NsHandle) *observer {
	n.t.Helper()
	var file *os.File
	n.in(ns, func() {
		eth, err := net.InterfaceByName("eth0")
		must(n.t, err)
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		must(n.t, err)
		must(n.t, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
		must(n.t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: eth.Index}))
		file = os.NewFile(uintptr(fd), name)
	})
	return n.observe(name, file.Close, func(buffer []byte) (arrival, error) {
		size, err := file.Read(buffer)
		return parseArrival(buffer[:size]), err
	})
}

// parseArrival finds sender and token of a packet; there is no token in what is of no concern.
func parseArrival(p []byte) arrival {
	const unreachable4, unreachable6 = 3, 1
	var a arrival
	switch {
	case len(p) > 20 && p[0]>>4 == 4 && (p[9] != unix.IPPROTO_ICMP || p[20] != unreachable4):
		a.from, _ = netip.AddrFromSlice(p[12:16])
	case len(p) > 40 && p[0]>>4 == 6 && (p[6] != unix.IPPROTO_ICMPV6 || p[40] != unreachable6):
		a.from, _ = netip.AddrFromSlice(p[8:24])
	default:
		return a
	}
	a.token = string(tokens.Find(p))
	return a
}

// listen observes what a UDP socket of a namespace, bound to all its addresses, gets.
func (n *topology) listen(name string, ns netns.NsHandle) *observer {
	n.t.Helper()
	var conn *net.UDPConn
	n.in(ns, func() {
		var err error
		conn, err = net.ListenUDP("udp", &net.UDPAddr{Port: testPort})
		must(n.t, err)
	})
	return n.observe(name, conn.Close, func(buffer []byte) (arrival, error) {
		size, from, err := conn.ReadFromUDPAddrPort(buffer)
		return arrival{from: from.Addr().Unmap(), token: string(tokens.Find(buffer[:size]))}, err
	})
}

func (n *topology) observe(name string, closeIt func() error, read func([]byte) (arrival, error)) *observer {
	o := &observer{t: n.t, name: name, seen: make(chan arrival, 1024)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buffer := make([]byte, 2048)
		for {
			a, err := read(buffer)
			if err != nil {
				return
			}
			if a.token != "" {
				o.seen <- a
			}
		}
	}()
	n.t.Cleanup(func() { must(n.t, closeIt()); <-ended })
	return o
}

// until waits for a token, and wants no other before it. It gives the address that the token came from. What was sent
// earlier over the same wire would have arrived earlier.
func (o *observer) until(word string) netip.Addr {
	o.t.Helper()
	for {
		select {
		case a := <-o.seen:
			if a.token == token(word) {
				return a.from
			}
			o.t.Errorf("at %s arrived %s, from %s", o.name, a.token, a.from)
		case <-time.After(patience):
			o.t.Fatalf("at %s never arrived %s", o.name, token(word))
		}
	}
}

// at is a place to send to: its address in a family, and who sees what arrives.
type at struct {
	*observer
	v4, v6 netip.Addr
}

func (a at) addr(v4 bool) netip.Addr {
	if v4 {
		return a.v4
	}
	return a.v6
}

// places are all that an AppVM can think of reaching: somebody on the uplink, the netvm at either address, another
// AppVM.
func (n *topology) places() []at {
	socket := n.listen("a socket of the netvm", n.router)
	return []at{
		{n.tap("a host on the uplink", n.server), resolverA, resolverA6},
		{socket, gateway4, gateway6},
		{socket, uplink4, uplink6},
		{n.tap("the other AppVM", n.other), other4, other6},
	}
}

// mustPass sends a packet from its own address to each place, and wants all there and nothing before them.
func (n *topology) mustPass(from netns.NsHandle, v4, v6 netip.Addr, places ...at) {
	n.t.Helper()
	for _, place := range places {
		for _, own := range []netip.Addr{v4, v6} {
			word := fmt.Sprintf("%s to %s, packet %d", own, place.addr(own.Is4()), n.sent)
			n.send(from, n.datagram(own, place.addr(own.Is4()), word))
			place.until(word)
		}
	}
}

// allow puts a rule that accepts everything into the admin's chain of both families.
func (n *topology) allow(b Backend, chain string) {
	n.t.Helper()
	switch b := b.(type) {
	case *nftBackend:
		for _, family := range []string{"ip", "ip6"} {
			n.run("nft", "add", "rule", family, ownTable, chain, "accept")
		}
	case *iptBackend:
		for _, f := range b.families {
			n.run(f.program, "-w", "-A", chain, "-j", "ACCEPT")
		}
	}
}

func TestPacketsOfTheTestsAreWellFormed(t *testing.T) {
	n := newTopology(t)
	socket := n.listen("the netvm", n.router)
	n.send(n.client, n.datagram(client4, gateway4, "over IPv4"), n.datagram(client6, gateway6, "over IPv6"))
	if from := socket.until("over IPv4"); from != client4 {
		t.Errorf("came from %s, want %s", from, client4)
	}
	if from := socket.until("over IPv6"); from != client6 {
		t.Errorf("came from %s, want %s", from, client6)
	}
	echo := n.tap("the AppVM", n.client)
	n.send(n.client, ping(client4, gateway4, "ping"), ping(client6, gateway6, "ping6"))
	echo.until("ping")
	echo.until("ping6")
	if !bytes.Contains(neighbour(136, client6, gateway6, other6).bytes(), other6.AsSlice()) {
		t.Error("a neighbour's message does not hold whom it is about")
	}
}
