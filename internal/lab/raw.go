package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// sendQueue is how many bytes of frames may wait to be sent, so that a burst is not refused half-way.
const sendQueue = 1 << 20

// Broadcast is Ethernet's address of everybody.
var Broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Frame is what a network card sends: any bytes from the destination address on. The types of this file build
// frames that are right in all but what they pretend.
type Frame interface {
	// Bytes returns the frame as it goes over the wire; the error says what about it cannot be written down.
	Bytes() ([]byte, error)
}

// Send sends frames from a network device of the host as they are: no route, neighbour or firewall of the host
// has a say.
func (h *Host) Send(ctx context.Context, device string, frames ...Frame) error {
	err := h.Do(func() error { return Send(ctx, device, frames...) })
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return nil
}

// Send is Host.Send from where the program runs.
func Send(ctx context.Context, device string, frames ...Frame) (err error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return fmt.Errorf("send frames from %s: %w", device, err)
	}
	// Protocol 0: this socket receives nothing (packet(7)).
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("send frames from %s: open a packet socket: %w", device, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendQueue); err != nil {
		return fmt.Errorf("send frames from %s: set the socket's queue: %w", device, err)
	}
	to := &unix.SockaddrLinklayer{Ifindex: link.Index}
	for i, f := range frames {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("send frame %d from %s: %w", i, device, err)
		}
		bytes, err := f.Bytes()
		if err != nil {
			return fmt.Errorf("send frame %d from %s: %w", i, device, err)
		}
		if err := unix.Sendto(fd, bytes, 0, to); err != nil {
			return fmt.Errorf("send frame %d from %s: %w", i, device, err)
		}
	}
	return nil
}

// ethernet puts a payload into a frame.
func ethernet(from, to net.HardwareAddr, protocol uint16, payload []byte) ([]byte, error) {
	if len(from) != 6 || len(to) != 6 {
		return nil, fmt.Errorf("a frame from %q to %q: an Ethernet address has six bytes", from, to)
	}
	frame := append(append(make([]byte, 0, 14+len(payload)), to...), from...)
	return append(binary.BigEndian.AppendUint16(frame, protocol), payload...), nil
}

// Packet is an IPv4 or IPv6 packet; IPv4 when From is.
type Packet struct {
	FromMAC, ToMAC net.HardwareAddr
	From, To       netip.Addr
	Body           Body
}

// Body is what a packet carries: UDP, TCP, Echo or Advertisement.
type Body interface {
	// protocol is the number in the IP header.
	protocol(v6 bool) uint8
	// bytes is the body, and where in it its checksum goes; withAddresses = the sum covers the addresses too.
	bytes(v6 bool) (body []byte, checksumAt int, withAddresses bool)
}

// Bytes implements Frame.
func (p Packet) Bytes() ([]byte, error) {
	if !p.From.IsValid() || p.From.BitLen() != p.To.BitLen() || p.Body == nil {
		return nil, fmt.Errorf("a packet from %s to %s: two addresses of one family and a body are needed", p.From, p.To)
	}
	v6 := p.From.Is6()
	protocol := p.Body.protocol(v6)
	body, at, withAddresses := p.Body.bytes(v6)
	var pseudo []byte // RFC 768 and RFC 8200, 8.1
	if withAddresses {
		pseudo = append(append(pseudo, p.From.AsSlice()...), p.To.AsSlice()...)
		pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(body)))
		pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(protocol))
	}
	binary.BigEndian.PutUint16(body[at:], internetChecksum(pseudo, body))
	if v6 {
		return ethernet(p.FromMAC, p.ToMAC, unix.ETH_P_IPV6, append(p.header6(protocol, len(body)), body...))
	}
	return ethernet(p.FromMAC, p.ToMAC, unix.ETH_P_IP, append(p.header4(protocol, len(body)), body...))
}

// header4 is RFC 791's.
func (p Packet) header4(protocol uint8, length int) []byte {
	const version4AndFiveWords, timeToLive = 0x45, 64
	h := []byte{version4AndFiveWords, 0}
	h = binary.BigEndian.AppendUint16(h, uint16(20+length))
	h = append(h, 0, 0, 0, 0, timeToLive, protocol, 0, 0)
	h = append(append(h, p.From.AsSlice()...), p.To.AsSlice()...)
	binary.BigEndian.PutUint16(h[10:], internetChecksum(h))
	return h
}

// header6 is RFC 8200's. RFC 4861, 7.1.2: neighbours believe only what came with hop limit 255.
func (p Packet) header6(protocol uint8, length int) []byte {
	const version6, hopLimit = 0x60, 255
	h := []byte{version6, 0, 0, 0}
	h = binary.BigEndian.AppendUint16(h, uint16(length))
	h = append(h, protocol, hopLimit)
	return append(append(h, p.From.AsSlice()...), p.To.AsSlice()...)
}

// internetChecksum is RFC 1071's, over parts of even length but for the last.
func internetChecksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, part := range parts {
		for ; len(part) > 1; part = part[2:] {
			sum += uint32(binary.BigEndian.Uint16(part))
		}
		if len(part) == 1 {
			sum += uint32(part[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// UDP is a datagram (RFC 768).
type UDP struct {
	FromPort, ToPort uint16
	Payload          []byte
}

func (UDP) protocol(bool) uint8 { return unix.IPPROTO_UDP }

func (u UDP) bytes(bool) ([]byte, int, bool) {
	b := binary.BigEndian.AppendUint16(nil, u.FromPort)
	b = binary.BigEndian.AppendUint16(b, u.ToPort)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(u.Payload)))
	return append(append(b, 0, 0), u.Payload...), 6, true
}

// TCP is a segment (RFC 9293).
type TCP struct {
	FromPort, ToPort          uint16
	Sequence, Acknowledgement uint32
	Flags                     uint8 // TCPSyn and the others, together
	Payload                   []byte
}

// The flags of TCP.
const (
	TCPFin = 1 << iota
	TCPSyn
	TCPRst
	TCPPsh
	TCPAck
)

func (TCP) protocol(bool) uint8 { return unix.IPPROTO_TCP }

func (s TCP) bytes(bool) ([]byte, int, bool) {
	const fiveWords, window = 5 << 4, 64240
	b := binary.BigEndian.AppendUint16(nil, s.FromPort)
	b = binary.BigEndian.AppendUint16(b, s.ToPort)
	b = binary.BigEndian.AppendUint32(b, s.Sequence)
	b = binary.BigEndian.AppendUint32(b, s.Acknowledgement)
	b = binary.BigEndian.AppendUint16(append(b, fiveWords, s.Flags), window)
	return append(append(b, 0, 0, 0, 0), s.Payload...), 16, true
}

// Echo is a ping (RFC 792, RFC 4443).
type Echo struct {
	ID, Sequence uint16
	Payload      []byte
}

func (Echo) protocol(v6 bool) uint8 {
	if v6 {
		return unix.IPPROTO_ICMPV6
	}
	return unix.IPPROTO_ICMP
}

func (e Echo) bytes(v6 bool) ([]byte, int, bool) {
	const request, request6 = 8, 128
	b := []byte{request, 0, 0, 0}
	if v6 {
		b[0] = request6
	}
	b = binary.BigEndian.AppendUint16(b, e.ID)
	return append(binary.BigEndian.AppendUint16(b, e.Sequence), e.Payload...), 2, v6
}

// Advertisement is a neighbour advertisement (RFC 4861, 4.4): it says that Target is at MAC. IPv6 only.
type Advertisement struct {
	Target netip.Addr
	MAC    net.HardwareAddr
}

func (Advertisement) protocol(bool) uint8 { return unix.IPPROTO_ICMPV6 }

func (a Advertisement) bytes(bool) ([]byte, int, bool) {
	const advertisement, solicitedOverride, targetMAC, eightBytes = 136, 0x60, 2, 1
	b := append([]byte{advertisement, 0, 0, 0, solicitedOverride, 0, 0, 0}, a.Target.AsSlice()...)
	return append(append(b, targetMAC, eightBytes), a.MAC...), 2, true
}

// Solicitation is a neighbour solicitation (RFC 4861, 4.3): it asks for Target, and says that the sender is at MAC. IPv6
// only.
type Solicitation struct {
	Target netip.Addr
	MAC    net.HardwareAddr
}

func (Solicitation) protocol(bool) uint8 { return unix.IPPROTO_ICMPV6 }

func (s Solicitation) bytes(bool) ([]byte, int, bool) {
	const solicitation, sourceMAC, eightBytes = 135, 1, 1
	b := append([]byte{solicitation, 0, 0, 0, 0, 0, 0, 0}, s.Target.AsSlice()...)
	return append(append(b, sourceMAC, eightBytes), s.MAC...), 2, true
}

// RouterAdvertisement claims to be a router for everything, with a prefix for addresses (RFC 4861, 4.2). IPv6 only.
type RouterAdvertisement struct {
	Prefix netip.Prefix
}

func (RouterAdvertisement) protocol(bool) uint8 { return unix.IPPROTO_ICMPV6 }

func (r RouterAdvertisement) bytes(bool) ([]byte, int, bool) {
	const advertisement, hopLimit, lifetime = 134, 64, 1800
	const prefixInformation, thirtyTwoBytes, onLinkAutonomous = 3, 4, 0xc0
	b := binary.BigEndian.AppendUint16([]byte{advertisement, 0, 0, 0, hopLimit, 0}, lifetime)
	b = append(b, make([]byte, 8)...) // reachable and retransmission times
	b = append(b, prefixInformation, thirtyTwoBytes, uint8(r.Prefix.Bits()), onLinkAutonomous)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, lifetime), lifetime)
	return append(append(b, 0, 0, 0, 0), r.Prefix.Addr().AsSlice()...), 2, true
}

// Redirect says that Destination is better reached by Target: ICMP's (RFC 792), with the header of a packet that never
// was, or NDP's (RFC 4861, 4.5).
type Redirect struct {
	Target, Destination netip.Addr
	Victim              netip.Addr // IPv4: who sent that packet
}

func (Redirect) protocol(v6 bool) uint8 { return Echo{}.protocol(v6) }

func (r Redirect) bytes(v6 bool) ([]byte, int, bool) { //nolint:unparam // Body asks for it
	const redirect, forHost, redirect6 = 5, 1, 137
	_, at, withAddresses := Echo{}.bytes(v6) // all of ICMP has its checksum there
	if v6 {
		b := append([]byte{redirect6, 0, 0, 0, 0, 0, 0, 0}, r.Target.AsSlice()...)
		return append(b, r.Destination.AsSlice()...), at, withAddresses
	}
	b := append([]byte{redirect, forHost, 0, 0}, r.Target.AsSlice()...)
	inner := Packet{From: r.Victim, To: r.Destination}.header4(unix.IPPROTO_UDP, 8)
	return append(append(b, inner...), 0, 1, 0, 53, 0, 8, 0, 0), at, withAddresses
}

// ARP is a question for an IPv4 address or an answer (RFC 826); the addresses in it need not be the sender's.
type ARP struct {
	FromMAC, ToMAC net.HardwareAddr // of the frame
	Answer         bool
	SenderMAC      net.HardwareAddr
	Sender         netip.Addr
	TargetMAC      net.HardwareAddr
	Target         netip.Addr
}

// Bytes implements Frame.
func (a ARP) Bytes() ([]byte, error) {
	if !a.Sender.Is4() || !a.Target.Is4() || len(a.SenderMAC) != 6 || len(a.TargetMAC) != 6 {
		return nil, fmt.Errorf("ARP from %s at %q to %s at %q: two IPv4 and two Ethernet addresses are needed",
			a.Sender, a.SenderMAC, a.Target, a.TargetMAC)
	}
	const ethernetHardware, request, reply = 1, 1, 2
	b := binary.BigEndian.AppendUint16(nil, ethernetHardware)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	b = append(b, 6, 4)
	if a.Answer {
		b = binary.BigEndian.AppendUint16(b, reply)
	} else {
		b = binary.BigEndian.AppendUint16(b, request)
	}
	b = append(append(b, a.SenderMAC...), a.Sender.AsSlice()...)
	b = append(append(b, a.TargetMAC...), a.Target.AsSlice()...)
	return ethernet(a.FromMAC, a.ToMAC, unix.ETH_P_ARP, b)
}
