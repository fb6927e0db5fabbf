package lab

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is two hosts with a cable between them, and their addresses and MACs.
type pair struct {
	left, right       *Host
	leftMAC, rightMAC net.HardwareAddr
}

var (
	left4, right4 = addr("192.0.2.1"), addr("192.0.2.2")
	left6, right6 = addr("2001:db8::1"), addr("2001:db8::2")
	nobody4       = addr("192.0.2.66")
	nobody6       = addr("2001:db8::66")
)

func newPair(t *testing.T) pair {
	t.Helper()
	p := pair{leftMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, rightMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}
	for _, h := range []struct {
		at   **Host
		name string
	}{{&p.left, "left"}, {&p.right, "right"}} {
		host, err := newHost(h.name)
		if err != nil {
			t.Fatal(err)
		}
		*h.at = host
		t.Cleanup(host.close)
	}
	if err := cable(p.left, "eth0", p.leftMAC.String(), p.right, "eth0", p.rightMAC.String()); err != nil {
		t.Fatal(err)
	}
	for host, addresses := range map[*Host][]netip.Addr{p.left: {left4, left6}, p.right: {right4, right6}} {
		for _, a := range addresses {
			if err := host.addAddresses("eth0", netip.PrefixFrom(a, a.BitLen()*3/4)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return p
}

// listen opens a socket in a host that is closed with the test.
func listen(t *testing.T, h *Host, network, address string) net.PacketConn {
	t.Helper()
	var conn net.PacketConn
	err := h.Do(func() (err error) {
		conn, err = net.ListenPacket(network, address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestWhatIsSentRawIsTakenForTrueByTheKernelOfTheOtherSide(t *testing.T) {
	p, ctx := newPair(t), context.Background()
	for name, c := range map[string]struct {
		network, listen string
		send            Packet
		want            string // of the sender; the payload is checked where there is one
	}{
		"a UDP datagram of odd length over IPv4": {"udp4", "192.0.2.2:4000",
			Packet{From: left4, To: right4, Body: UDP{FromPort: 53, ToPort: 4000, Payload: []byte("odd")}}, "192.0.2.1:53"},
		"a UDP datagram from somebody else": {"udp4", "192.0.2.2:4001",
			Packet{From: nobody4, To: right4, Body: UDP{FromPort: 67, ToPort: 4001, Payload: []byte("odd")}}, "192.0.2.66:67"},
		"a UDP datagram over IPv6": {"udp6", "[2001:db8::2]:4002",
			Packet{From: nobody6, To: right6, Body: UDP{FromPort: 53, ToPort: 4002, Payload: []byte("odd")}}, "[2001:db8::66]:53"},
		"an echo request": {"ip4:icmp", "192.0.2.2",
			Packet{From: nobody4, To: right4, Body: Echo{ID: 7}}, "192.0.2.66"},
		"an echo request over IPv6": {"ip6:58", "2001:db8::2",
			Packet{From: nobody6, To: right6, Body: Echo{ID: 7}}, "2001:db8::66"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := listen(t, p.right, c.network, c.listen)
			c.send.FromMAC, c.send.ToMAC = p.leftMAC, p.rightMAC
			if err := p.left.Send(ctx, "eth0", c.send); err != nil {
				t.Fatal(err)
			}
			buffer := make([]byte, 100)
			for {
				n, from, err := conn.ReadFrom(buffer)
				if err != nil {
					t.Fatalf("nothing came: %v", err)
				}
				if from.String() != c.want {
					continue // the kernel's own ICMPv6
				}
				if u, is := c.send.Body.(UDP); is && string(buffer[:n]) != string(u.Payload) {
					t.Errorf("%q came, want %q", buffer[:n], u.Payload)
				}
				return
			}
		})
	}
}

func TestARawSynIsAnsweredByAListener(t *testing.T) {
	p, ctx := newPair(t), context.Background()
	// A raw socket in left gets a copy of what answers; the kernel there resets the connection that it does not know.
	conn := listen(t, p.left, "ip4:tcp", "192.0.2.1")
	var server net.Listener
	if err := p.right.Do(func() (err error) {
		server, err = net.Listen("tcp4", "192.0.2.2:4000")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	syn := Packet{p.leftMAC, p.rightMAC, left4, right4, TCP{FromPort: 999, ToPort: 4000, Sequence: 7, Flags: TCPSyn}}
	if err := p.left.Send(ctx, "eth0", syn); err != nil {
		t.Fatal(err)
	}
	segment := make([]byte, 100)
	n, _, err := conn.ReadFrom(segment)
	if err != nil || n < 20 || segment[13] != TCPSyn|TCPAck || segment[11] != 8 {
		t.Errorf("the answer to a SYN with sequence number 7 is %x, %v; want SYN and ACK of 8", segment[:n], err)
	}
}

func TestForgedNeighboursAreBelievedByAKernelThatAsked(t *testing.T) {
	p, ctx := newPair(t), context.Background()
	for name, c := range map[string]struct {
		who    netip.Addr
		forged Frame
	}{
		"ARP": {nobody4, ARP{FromMAC: p.leftMAC, ToMAC: p.rightMAC, Answer: true, SenderMAC: p.leftMAC, Sender: nobody4,
			TargetMAC: p.rightMAC, Target: right4}},
		"NDP": {nobody6, Packet{p.leftMAC, p.rightMAC, nobody6, right6, Advertisement{Target: nobody6, MAC: p.leftMAC}}},
	} {
		t.Run(name, func(t *testing.T) {
			// What is sent waits for the neighbour, so the kernel asks for it; it believes an answer that comes meanwhile.
			err := p.right.Do(func() error {
				conn, err := net.Dial("udp", netip.AddrPortFrom(c.who, 9).String())
				if err != nil {
					return err
				}
				_, err = conn.Write(nil)
				return errors.Join(err, conn.Close())
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.left.Send(ctx, "eth0", c.forged); err != nil {
				t.Fatal(err)
			}
			if mac := neighbour(t, p.right, c.who); mac.String() != p.leftMAC.String() {
				t.Errorf("%s is at %q for the other side, want the forger's %s", c.who, mac, p.leftMAC)
			}
		})
	}
}

func neighbour(t *testing.T, h *Host, who netip.Addr) net.HardwareAddr {
	t.Helper()
	family := unix.AF_INET
	if who.Is6() {
		family = unix.AF_INET6
	}
	list, err := h.links.NeighList(0, family)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range list {
		if n.IP.Equal(who.AsSlice()) {
			return n.HardwareAddr
		}
	}
	return nil
}

func TestFramesThatCannotBeWrittenDownAreErrors(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	for name, f := range map[string]Frame{
		"two families":       Packet{mac, mac, left4, right6, Echo{}},
		"no address":         Packet{FromMAC: mac, ToMAC: mac, Body: Echo{}},
		"no body":            Packet{FromMAC: mac, ToMAC: mac, From: left4, To: right4},
		"a short MAC":        Packet{mac[:3], mac, left4, right4, Echo{}},
		"ARP for IPv6":       ARP{FromMAC: mac, ToMAC: mac, SenderMAC: mac, Sender: left6, TargetMAC: mac, Target: right6},
		"ARP without a MAC":  ARP{FromMAC: mac, ToMAC: mac, Sender: left4, Target: right4},
		"ARP of a short MAC": ARP{FromMAC: mac[:2], ToMAC: mac, SenderMAC: mac, Sender: left4, TargetMAC: mac, Target: right4},
	} {
		if b, err := f.Bytes(); err == nil {
			t.Errorf("%s: %x, want an error", name, b)
		}
	}
}

func TestSendingFromADeviceThatIsNotThereIsAnError(t *testing.T) {
	p := newPair(t)
	ctx, cancel := context.WithCancel(context.Background())
	ping := Packet{p.leftMAC, p.rightMAC, left4, right4, Echo{}}
	if err := p.left.Send(ctx, "eth9", ping); err == nil {
		t.Error("no error from eth9")
	}
	cancel()
	if err := p.left.Send(ctx, "eth0", ping); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
}
