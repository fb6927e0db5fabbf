//go:build packages

package packages

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"netvmd/internal/lab"
)

const (
	// askEvery is how often each loop of a load asks over UDP.
	askEvery = 10 * time.Millisecond
	// askOverTCP is the same over TCP, for each of which dnsmasq starts a process, and never more than 20 at once.
	askOverTCP = 50 * time.Millisecond
	// beatEvery is how often a flow sends a byte and wants it back.
	beatEvery = 20 * time.Millisecond
	// answerLimit is how long any answer may take on a busy machine: what is lost does not come later.
	answerLimit = 5 * time.Second
	// flowPort is of a server on the Internet.
	flowPort = 4242
)

// story is what is told of a Debian that is a domain of a lab.
type story struct {
	*lab.Lab
	debian
}

// load is what an AppVM does while something happens to its netvm: it asks both virtual addresses, over UDP and TCP, and
// has a connection open to a server on the Internet.
type load struct {
	s     *story
	loops map[string]*lab.Loop // by what they ask
	flow  *flow
}

func (s *story) load() *load {
	s.t.Helper()
	l := &load{s: s, loops: make(map[string]*lab.Loop), flow: s.connect()}
	for _, virtual := range lab.Virtual4 {
		l.loops["UDP to "+virtual.String()] = s.Work.AskLoop(s.ctx, virtual, lab.Question{Timeout: answerLimit}, askEvery)
		l.loops["TCP to "+virtual.String()] = s.Work.AskLoop(s.ctx, virtual, lab.Question{TCP: true, Timeout: answerLimit}, askOverTCP)
	}
	return l
}

// unharmed ends the load and wants that nothing of it was lost: each query was answered, and by one of the resolvers.
func (l *load) unharmed(resolvers ...netip.Addr) {
	l.s.t.Helper()
	if err := l.flow.close(); err != nil {
		l.s.t.Errorf("the connection to the Internet: %v", err)
	}
	now := time.Now()
	for name, loop := range l.loops {
		// What is asked from now on counts too, and each has asked at least once.
		_, err := loop.Await(l.s.ctx, now, func(lab.Sample) bool { return true })
		l.s.must(err)
		t := lab.Count(loop.Stop())
		good := 0
		for _, r := range resolvers {
			good += t.By[r]
		}
		if good != t.Asked {
			l.s.t.Errorf("queries over %s: %+v; want all answered, by %s", name, t, resolvers)
		}
	}
}

// flow is a TCP connection of the AppVM to a server on the Internet, which sends back what it gets.
type flow struct {
	listener net.Listener
	client   net.Conn
	cancel   context.CancelFunc
	ended    chan error
	served   chan error
}

func (s *story) connect() *flow {
	s.t.Helper()
	f := &flow{ended: make(chan error, 1), served: make(chan error, 1)}
	at := netip.AddrPortFrom(lab.Internet, flowPort).String()
	s.must(s.Home.Go(func() (err error) {
		f.listener, err = net.Listen("tcp", at)
		return err
	}))
	go func() { f.served <- f.serve() }()
	s.must(s.Work.Go(func() (err error) {
		f.client, err = net.DialTimeout("tcp", at, answerLimit)
		return err
	}))
	ctx, cancel := context.WithCancel(s.ctx)
	f.cancel = cancel
	go func() { f.ended <- f.beat(ctx) }()
	return f
}

// serve sends one client everything back.
func (f *flow) serve() error {
	conn, err := f.listener.Accept()
	if err != nil {
		return err
	}
	_, err = io.Copy(conn, conn)
	return errors.Join(err, conn.Close())
}

// beat sends a byte again and again, and wants each back in time.
func (f *flow) beat(ctx context.Context) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for beat := []byte{0}; ; beat[0]++ {
		if err := f.client.SetDeadline(time.Now().Add(answerLimit)); err != nil {
			return err
		}
		if _, err := f.client.Write(beat); err != nil {
			return err
		}
		back := make([]byte, 1)
		if _, err := io.ReadFull(f.client, back); err != nil {
			return err
		}
		if back[0] != beat[0] {
			return fmt.Errorf("byte %d came back as %d", beat[0], back[0])
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// close ends the connection and tells what was wrong with it.
func (f *flow) close() error {
	f.cancel()
	err := <-f.ended
	return errors.Join(err, f.client.Close(), f.listener.Close(), <-f.served)
}
