package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"netvmd/internal/lab"
)

// lie is a frame that pretends something. One that is lost is dropped by the kernel before any rule could count it.
type lie struct {
	frame lab.Frame
	lost  bool
	arp   bool
}

// raw is a frame that is written down already.
type raw []byte

func (r raw) Bytes() ([]byte, error) { return r, nil }

// forgers are sources that the AppVM work does not have. The kernel itself drops some before any rule.
func (s *scene) forgers() (all []netip.Addr, lost []netip.Addr) {
	for _, text := range []string{
		"10.137.0.12", "10.137.0.6", "192.0.2.10", "192.0.2.1", "203.0.113.80", "10.139.1.1", "127.0.0.1", "127.0.0.53", "0.0.0.0",
		"255.255.255.255", "192.0.2.255", "224.0.0.1", "169.254.1.1", "10.137.0.10", "240.0.0.1",
		"fd09:24ef:4179::a89:c", "fd09:24ef:4179::a89:6", "2001:db8:1::10", "2001:db8:1::1", "::", "fe80::fcff:ffff:feff:ffff", "fe80::1",
		"::10.137.0.11", "2002:a89:b::1",
	} {
		all = append(all, netip.MustParseAddr(text))
	}
	for _, text := range []string{"::1", "ff02::1", "::ffff:10.137.0.11", "::ffff:127.0.0.1"} { // ipv6_rcv() lets none of them in
		lost = append(lost, netip.MustParseAddr(text))
	}
	return append(all, lost...), lost
}

// lies are all frames that the AppVM work tries.
func (s *scene) lies() []lie {
	var out []lie
	sources, lost := s.forgers()
	number := 0
	for _, from := range sources {
		for _, to := range s.targets(from.Is4()) {
			for what, body := range bodies() {
				number++
				packet := s.packet(from, to, body(fmt.Sprintf("<forged %s of %d>", what, number)))
				out = append(out, lie{frame: packet, lost: slices.Contains(lost, from)})
			}
		}
	}
	out = append(out, s.fragments()...)
	return append(append(out, s.neighbourLies()...), s.tagged()...)
}

// targets is where the lies go: the world, the netvm and another AppVM.
func (s *scene) targets(v4 bool) []netip.Addr {
	if v4 {
		return []netip.Addr{lab.Internet, s.Home.NetVM, gateway4, s.Personal.Address}
	}
	return []netip.Addr{s.Home.Router6.Addr(), s.Home.NetVM6, gateway6, s.Personal.Address6}
}

// bodies are what a lie can carry.
func bodies() map[string]func(token string) lab.Body {
	udp := func(from, to uint16) func(string) lab.Body {
		return func(token string) lab.Body { return lab.UDP{FromPort: from, ToPort: to, Payload: []byte(token)} }
	}
	return map[string]func(token string) lab.Body{
		"dns":         udp(40000, 53),
		"dhcp answer": udp(67, 68),
		"dhcp query":  udp(68, 67),
		"dhcp6":       udp(547, 546),
		"ping":        func(token string) lab.Body { return lab.Echo{ID: 7, Payload: []byte(token)} },
		"syn": func(token string) lab.Body {
			return lab.TCP{FromPort: 40000, ToPort: 8080, Sequence: 1, Flags: lab.TCPSyn, Payload: []byte(token)}
		},
		"reset": func(token string) lab.Body {
			return lab.TCP{FromPort: 40000, ToPort: 8080, Sequence: 1, Flags: lab.TCPRst, Payload: []byte(token)}
		},
	}
}

func (s *scene) packet(from, to netip.Addr, body lab.Body) lab.Packet {
	return lab.Packet{FromMAC: s.mac(s.Work.Card.MAC), ToMAC: s.mac(vifMAC), From: from, To: to, Body: body}
}

// bytes writes a frame down.
func (s *scene) bytes(f lab.Frame) []byte {
	s.t.Helper()
	b, err := f.Bytes()
	s.must(err)
	return b
}

// fragments are a forged packet in two parts, and one whose rest never comes. The kernel puts parts together first, so
// that one lie is counted at most.
func (s *scene) fragments() []lie {
	whole := s.bytes(s.packet(s.Personal.Address, lab.Internet, lab.UDP{FromPort: 40000, ToPort: 53,
		Payload: []byte(strings.Repeat("<forged fragment>", 10))}))
	const ethernetAndIP, at = 34, 80 // a multiple of eight
	first := fragment(whole[:ethernetAndIP], whole[ethernetAndIP:ethernetAndIP+at], 0, true, 1)
	second := fragment(whole[:ethernetAndIP], whole[ethernetAndIP+at:], at, false, 1)
	alone := fragment(whole[:ethernetAndIP], whole[ethernetAndIP:ethernetAndIP+at], 0, true, 2)
	return []lie{{frame: first, lost: true}, {frame: second}, {frame: alone, lost: true}}
}

// fragment is a part of an IPv4 packet (RFC 791).
func fragment(head, body []byte, offset int, more bool, id uint16) raw {
	out := append(slices.Clone(head), body...)
	ip := out[14:34]
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(body)))
	binary.BigEndian.PutUint16(ip[4:], id)
	flags := uint16(offset / 8)
	if more {
		flags |= 0x2000
	}
	binary.BigEndian.PutUint16(ip[6:], flags)
	ip[10], ip[11] = 0, 0
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum>>16+sum&0xffff))
	return out
}

// tagged are right and forged packets with VLAN tags, in a network of which the netvm is no member. A tag of number 0
// is no VLAN, only a priority.
func (s *scene) tagged() []lie {
	tag := func(f lab.Frame, tags ...uint16) raw {
		b := s.bytes(f)
		head := slices.Clone(b[:12])
		for _, t := range tags {
			head = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(head, 0x8100), t)
		}
		return append(head, b[12:]...)
	}
	right := s.packet(s.Work.Address, lab.Internet, lab.UDP{FromPort: 1, ToPort: 2, Payload: []byte("<forged vlan>")})
	wrong := s.packet(s.Personal.Address, lab.Internet, lab.UDP{FromPort: 1, ToPort: 2, Payload: []byte("<forged priority>")})
	return []lie{
		{frame: tag(right, 5), lost: true}, {frame: tag(right, 5, 6), lost: true}, {frame: tag(wrong, 5), lost: true},
		{frame: tag(wrong, 0)}, {frame: tag(wrong, 0, 5), lost: true},
	}
}

// neighbourLies claim to be others, or to know the way.
func (s *scene) neighbourLies() []lie {
	own, vif := s.mac(s.Work.Card.MAC), s.mac(vifMAC)
	var out []lie
	for _, victim := range []netip.Addr{s.Personal.Address, gateway4, s.Home.Router.Addr(), s.Home.NetVM, netip.MustParseAddr("10.137.0.99")} {
		for _, answer := range []bool{false, true} {
			for _, target := range []netip.Addr{victim, gateway4} { // the first is gratuitous ARP
				for _, to := range []net.HardwareAddr{lab.Broadcast, vif} {
					out = append(out, lie{arp: true, frame: lab.ARP{FromMAC: own, ToMAC: to, Answer: answer, SenderMAC: own, Sender: victim,
						TargetMAC: vif, Target: target}})
				}
			}
		}
	}
	otherMAC := net.HardwareAddr{2, 0, 0, 0, 0, 0x66}
	// With its own address it may speak ARP, but who it is stands firm.
	out = append(out, lie{lost: true, frame: lab.ARP{FromMAC: own, ToMAC: lab.Broadcast, Answer: true, SenderMAC: otherMAC, Sender: s.Work.Address,
		TargetMAC: otherMAC, Target: s.Work.Address}})
	linkLocal, router := netip.MustParseAddr("fe80::fcff:ffff:feff:ffff"), s.Home.Router6.Addr()
	for _, from := range []netip.Addr{s.Work.Address6, s.Personal.Address6, linkLocal, netip.IPv6Unspecified()} {
		for _, to := range []netip.Addr{gateway6, netip.MustParseAddr("ff02::1")} {
			for _, body := range []lab.Body{
				lab.Advertisement{Target: s.Personal.Address6, MAC: own}, lab.Advertisement{Target: gateway6, MAC: own},
				lab.Advertisement{Target: router, MAC: own}, lab.RouterAdvertisement{Prefix: netip.MustParsePrefix("2001:db8:66::/64")},
				lab.Redirect{Target: s.Work.Address6, Destination: router},
			} {
				out = append(out, lie{frame: s.packet(from, to, body)})
			}
			if from != s.Work.Address6 {
				out = append(out, lie{frame: s.packet(from, to, lab.Solicitation{Target: gateway6, MAC: own})})
			}
		}
	}
	own6 := s.packet(s.Work.Address6, gateway6, lab.Solicitation{Target: gateway6, MAC: otherMAC})
	redirect := s.packet(s.Work.Address, s.Home.NetVM, lab.Redirect{Target: s.Work.Address, Destination: lab.Internet, Victim: s.Home.NetVM})
	forged := s.packet(s.Home.Router.Addr(), s.Home.NetVM, lab.Redirect{Target: s.Work.Address, Destination: lab.Internet, Victim: s.Home.NetVM})
	return append(out, lie{frame: own6, lost: true}, lie{frame: redirect, lost: true}, lie{frame: forged})
}

func TestNothingForgedGetsAnywhere(t *testing.T) {
	overBackends(t, func(s *scene) {
		s.attach(s.Work, s.Personal)
		s.allow("custom-forward")
		s.allow("custom-input")
		uplink := s.tap("the uplink", s.Home.Host, "lan0")
		personal := s.tap("another AppVM", s.Personal.Host, "eth0")
		sockets := s.netvmSockets()
		before, neighbours, counted := s.dump(), s.neighbours(), s.dropped()

		lies, want := s.lies(), 0
		frames := make([]lab.Frame, len(lies))
		for i, l := range lies {
			frames[i] = l.frame
			if !l.lost && (!l.arp || s.NetVM.Backend() == lab.NFTables) {
				want++
			}
		}
		s.must(s.Work.Send(s.ctx, "eth0", frames...))
		same(s.t, "after the lies", s.dump(), before)
		same(s.t, "neighbours after the lies", s.neighbours(), neighbours)
		s.must(s.Work.Send(s.ctx, "eth0",
			s.datagram(s.Work, s.Work.Address, lab.Internet, 7777, "<right>"), s.datagram(s.Work, s.Work.Address, s.Personal.Address, 7777, "<right>"),
			s.datagram(s.Work, s.Work.Address, gateway4, 7777, "<right>"),
			s.datagram(s.Work, s.Work.Address6, s.Home.Router6.Addr(), 7777, "<right too>"),
			s.datagram(s.Work, s.Work.Address6, s.Personal.Address6, 7777, "<right too>"), s.datagram(s.Work, s.Work.Address6, gateway6, 7777, "<right too>")))
		for _, e := range []*ear{uplink, personal, sockets} {
			e.await("<right>")
			e.await("<right too>")
			e.mustNotHave("forged")
		}
		if got := s.dropped() - counted; got < want {
			s.t.Errorf("of %d lies %d should have been counted, and %d were", len(lies), want, got)
		}
	})
}

// neighbours lists whom the netvm knows on its vifs, permanent or not.
func (s *scene) neighbours() string {
	return s.netvm("ip neighbour show | grep vif; ip -6 neighbour show | grep vif; true")
}

var (
	nftCounter = regexp.MustCompile(`counter (?:spoofed|link-local|spoofed-neighbour) \{\s*packets ([0-9]+)`)
	iptCounter = regexp.MustCompile(`\[([0-9]+):[0-9]+\] -A QBS-ALLOWED .*-j DROP`)
)

// dropped is how many packets of AppVMs the antispoof rules have dropped.
func (s *scene) dropped() int {
	s.t.Helper()
	listing, pattern := "nft list counters", nftCounter
	switch s.NetVM.Backend() {
	case lab.IPTablesNFT:
		listing, pattern = "iptables-nft-save -c -t raw; ip6tables-nft-save -c -t raw", iptCounter
	case lab.IPTablesLegacy:
		listing, pattern = "iptables-legacy-save -c -t raw; ip6tables-legacy-save -c -t raw", iptCounter
	}
	total := 0
	for _, found := range pattern.FindAllStringSubmatch(s.netvm(listing), -1) {
		n, err := strconv.Atoi(found[1])
		s.must(err)
		total += n
	}
	return total
}

func TestNoPortOfTheNetvmAnswersAnAppVM(t *testing.T) {
	overBackends(t, func(s *scene) {
		s.attach(s.Work, s.Personal)
		sockets := s.netvmSockets()
		doors := []netip.Addr{gateway4, gateway6, s.Home.NetVM, s.Home.NetVM6}
		var knocks sync.WaitGroup
		for _, to := range doors {
			for _, port := range append([]string{tcpPort}, udpPorts...) {
				for _, network := range []string{"tcp", "udp"} {
					knocks.Add(1)
					go func() {
						defer knocks.Done()
						s.mustBeRefused(network, net.JoinHostPort(to.String(), port))
					}()
				}
			}
		}
		knocks.Wait()
		s.must(s.Work.Send(s.ctx, "eth0",
			s.datagram(s.Work, s.Work.Address, netip.MustParseAddr("255.255.255.255"), 67, "<to all>"),
			s.datagram(s.Work, s.Work.Address, netip.MustParseAddr("224.0.0.251"), 5353, "<to all>"),
			s.datagram(s.Work, s.Work.Address, netip.MustParseAddr("127.0.0.1"), 7777, "<to all>"),
			s.datagram(s.Work, s.Work.Address6, netip.MustParseAddr("ff02::1"), 7777, "<to all>"),
			s.datagram(s.Work, s.Work.Address6, netip.MustParseAddr("fe80::fcff:ffff:feff:ffff"), 7777, "<to all>"),
			s.packet(s.Work.Address, gateway4, lab.Echo{ID: 1, Payload: []byte("<ping>")})))
		sockets.await("<ping>")
		sockets.mustNotHave("knock")
		sockets.mustNotHave("connection")
		sockets.mustNotHave("to all")
	})
}

// mustBeRefused wants a port to be closed, without an answer.
func (s *scene) mustBeRefused(network, address string) {
	s.t.Helper()
	var err error
	if failure := s.Work.Go(func() error { err = knock(network, address); return nil }); failure != nil {
		s.t.Error(failure)
	}
	var timeout net.Error
	if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		s.t.Errorf("%s to %s: %v; want it refused", network, address, err)
	}
}

// knock says something to a port until there is an answer or a refusal: over all hosts the kernel refuses at most 50 at
// once, and then 1000 a second (icmp_msgs_burst, icmp_msgs_per_sec).
func knock(network, address string) error {
	conn, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	for range 10 {
		if err = conn.SetDeadline(time.Now().Add(brief)); err != nil {
			return err
		}
		if _, err = conn.Write([]byte("<knock>")); err == nil {
			_, err = conn.Read(make([]byte, 10))
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	return err
}

func TestAppVMsReachEachOtherOnlyWhenTheAdminOpensIt(t *testing.T) {
	overBackends(t, func(s *scene) {
		s.attach(s.Work, s.Personal)
		personal := s.tap("another AppVM", s.Personal.Host, "eth0")
		uplink := s.tap("the uplink", s.Home.Host, "lan0")
		knock := func(token string) {
			s.must(s.Work.Send(s.ctx, "eth0", s.datagram(s.Work, s.Work.Address, s.Personal.Address, 7777, token),
				s.datagram(s.Work, s.Work.Address6, s.Personal.Address6, 7777, token), s.datagram(s.Work, s.Work.Address, lab.Internet, 7777, token)))
			uplink.await(token)
		}
		knock("<closed>")
		s.allow("custom-forward")
		knock("<open>")
		personal.await("<open>")
		personal.mustNotHave("closed")
	})
}
