package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// questionName is the name that every resolver of the lab answers with its own address.
const questionName = "whoami.lab"

// AskTimeout is how long Ask waits for an answer unless told otherwise.
const AskTimeout = time.Second

// Why a query got no answer.
var (
	// ErrRefused: an ICMP error or a TCP reset came back.
	ErrRefused = errors.New("refused")
	// ErrTimeout: nothing came back.
	ErrTimeout = errors.New("no answer")
)

// Question says how to ask. The zero value is UDP from a port of the kernel's choice.
type Question struct {
	TCP     bool
	Port    uint16        // source port; 0 = the kernel's choice
	Timeout time.Duration // 0 = AskTimeout
}

// Answer is what came back.
type Answer struct {
	Who   netip.Addr // the resolver that answered
	Asked time.Time
	Took  time.Duration // until the answer, or until the error was known
}

// Ask sends one query from the host to a DNS server, without retries, and says which of the lab's resolvers
// answered. The error is ErrRefused, ErrTimeout, or what else went wrong; Took is set with an error too.
func (h *Host) Ask(ctx context.Context, server netip.Addr, q Question) (Answer, error) {
	// A socket stays in the namespace where it was opened, whichever thread uses it later. To connect UDP never
	// blocks; TCP waits for the other side, so it may not hold the host's thread.
	in := h.Do
	if q.TCP {
		in = h.Go
	}
	a, err := ask(ctx, server, q, in)
	if err != nil {
		return a, fmt.Errorf("%s asks %s: %w", h.Name, server, err)
	}
	return a, nil
}

// Ask is Host.Ask from where the program runs.
func Ask(ctx context.Context, server netip.Addr, q Question) (Answer, error) {
	a, err := ask(ctx, server, q, func(f func() error) error { return f() })
	if err != nil {
		return a, fmt.Errorf("ask %s: %w", server, err)
	}
	return a, nil
}

// ask opens the socket by way of in.
func ask(ctx context.Context, server netip.Addr, q Question, in func(func() error) error) (Answer, error) {
	if q.Timeout == 0 {
		q.Timeout = AskTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, q.Timeout)
	defer cancel()
	network, dialer := "udp", net.Dialer{LocalAddr: &net.UDPAddr{Port: int(q.Port)}}
	if q.TCP {
		network, dialer = "tcp", net.Dialer{LocalAddr: &net.TCPAddr{Port: int(q.Port)}}
	}
	if q.Port != 0 {
		dialer.Control = reuseAddress
	}
	a := Answer{Asked: time.Now()}
	var conn net.Conn
	err := in(func() (err error) {
		conn, err = dialer.DialContext(ctx, network, netip.AddrPortFrom(server, 53).String())
		return err
	})
	if err == nil {
		defer func() { _ = conn.Close() }() // what was sent is answered or not
		a.Who, err = exchange(ctx, conn, q.TCP)
	}
	a.Took = time.Since(a.Asked)
	if err != nil {
		return a, classify(err)
	}
	return a, nil
}

// reuseAddress lets a client take the same source port again at once: TCP keeps it for a while, and a program that
// is being started holds a copy of every socket until it has called exec, also of one that was closed meanwhile.
// Of two UDP sockets that are equally good Linux gives a datagram to the newer one (udp_lib_get_port adds it to the
// head of the list).
func reuseAddress(_, _ string, raw syscall.RawConn) error {
	var err error
	if controlErr := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	}); controlErr != nil {
		return controlErr
	}
	return err
}

// exchange sends the question over conn and reads until its answer comes.
func exchange(ctx context.Context, conn net.Conn, tcp bool) (netip.Addr, error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return netip.Addr{}, err
		}
	}
	id := uint16(rand.Uint32())
	query, err := packQuestion(id)
	if err != nil {
		return netip.Addr{}, err
	}
	if tcp {
		query = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	}
	if _, err := conn.Write(query); err != nil {
		return netip.Addr{}, err
	}
	for {
		message, err := readMessage(conn, tcp)
		if err != nil {
			return netip.Addr{}, err
		}
		who, mine, err := parseAnswer(id, message)
		if mine {
			return who, err
		}
	}
}

func readMessage(conn net.Conn, tcp bool) ([]byte, error) {
	buffer := make([]byte, 4096)
	if !tcp {
		n, err := conn.Read(buffer)
		return buffer[:n], err
	}
	// RFC 1035, 4.2.2: over TCP two bytes of length precede a message.
	if _, err := io.ReadFull(conn, buffer[:2]); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint16(buffer))
	if length > len(buffer) {
		return nil, fmt.Errorf("an answer of %d bytes", length)
	}
	_, err := io.ReadFull(conn, buffer[:length])
	return buffer[:length], err
}

func packQuestion(id uint16) ([]byte, error) {
	m := dnsmessage.Message{
		Header: dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(questionName + "."),
			Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET}},
	}
	return m.Pack()
}

// parseAnswer reads an answer to the question with this id; mine is false for any other datagram, such as
// the late answer to an earlier question.
func parseAnswer(id uint16, message []byte) (who netip.Addr, mine bool, err error) {
	var m dnsmessage.Message
	if err := m.Unpack(message); err != nil || m.ID != id || !m.Response {
		return netip.Addr{}, false, nil
	}
	for _, r := range m.Answers {
		txt, ok := r.Body.(*dnsmessage.TXTResource)
		if !ok || len(txt.TXT) != 1 {
			continue
		}
		who, err := netip.ParseAddr(txt.TXT[0])
		if err != nil {
			return netip.Addr{}, true, fmt.Errorf("an answer that names no resolver: %w", err)
		}
		return who, true, nil
	}
	return netip.Addr{}, true, fmt.Errorf("an answer without TXT %s: %s", questionName, m.RCode)
}

// classify tells a refusal and silence from other failures. On a connected UDP socket Linux reports ICMP
// admin-prohibited as EHOSTUNREACH (net/ipv4/icmp.c, icmp_err_convert), ICMPv6's as EACCES, and port
// unreachable, like a TCP reset, as ECONNREFUSED.
func classify(err error) error {
	var network net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EACCES),
		errors.Is(err, syscall.ENETUNREACH):
		return fmt.Errorf("%w: %w", ErrRefused, err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &network) && network.Timeout():
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	return err
}
