package main

import (
	"context"
	_ "embed" // the script
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"sort"
	"sync"
	"text/tabwriter"
	"time"

	"netvmd/internal/lab"
)

const (
	// vifRounds is how often a vif is brought up and down.
	vifRounds = 200
	// manyVifs is how many are brought up at once, and atATime of them in parallel.
	manyVifs, atATime = 256, 8
	// manyTimeout bounds all that is done with so many; with iptables each takes some 200 ms, one after the other.
	manyTimeout = 10 * time.Minute
)

// vifScript takes the steps of the hotplug program, one process of a plain tool after the other.
//
//go:embed vifscript.sh
var vifScript string

// vifMeasure is the part of the benchmark that is about vifs, over one backend.
type vifMeasure struct {
	out terminal
	lab *lab.Lab
}

// vifs measures in a lab without daemons: the hotplug program needs none.
func (c *common) vifs(ctx context.Context, out terminal, b lab.Backend) (err error) {
	l, err := lab.New(ctx, lab.Options{VifRoute: c.beside("vif-route-netvm"), Backend: b, Bare: true})
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := l.Close(); err == nil {
			err = closeErr
		}
	}()
	out.printf("%s\n", out.paint(bold, fmt.Sprintf("vif-route-netvm with %s, process start included", b)))
	m := vifMeasure{out: out, lab: l}
	for _, step := range []func(context.Context) error{m.oneByOne, m.many} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("vifs: %w", err)
		}
	}
	return nil
}

// oneByOne brings one vif up and down again and again, by the program and by the script in turn.
func (m vifMeasure) oneByOne(ctx context.Context) error {
	if err := m.lab.Personal.Attach(ctx); err != nil { // so that the rules are loaded
		return err
	}
	times := map[string][]time.Duration{}
	for range vifRounds {
		for who, command := range map[string]func(context.Context, string, lab.Card) *exec.Cmd{
			"vif-route-netvm": m.lab.NetVM.HotplugCommand, "script": m.script,
		} {
			if who == "script" && m.lab.NetVM.Backend() != lab.NFTables {
				continue
			}
			online, offline, err := m.cycle(m.lab.Work.Card, func(what string, c lab.Card) *exec.Cmd { return command(ctx, what, c) })
			if err != nil {
				return fmt.Errorf("%s: %w", who, err)
			}
			times[who+" online"] = append(times[who+" online"], online)
			times[who+" offline"] = append(times[who+" offline"], offline)
		}
	}
	table := tabwriter.NewWriter(m.out.w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "   %d times\tmedian\tp99\tslowest\t\n", vifRounds)
	medians := map[string]time.Duration{}
	for _, what := range []string{"vif-route-netvm online", "vif-route-netvm offline", "script online", "script offline"} {
		if len(times[what]) > 0 {
			medians[what] = quantileRow(table, what, times[what])
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, what := range []string{"online", "offline"} {
		if script := medians["script "+what]; script > 0 {
			m.out.printf("   %s: the script, of ip, sysctl, nft and conntrack, takes %.1f times as long\n", what,
				float64(script)/float64(medians["vif-route-netvm "+what]))
		}
	}
	return nil
}

// cycle plugs a card in, brings its vif up, unplugs the card and cleans up, as Xen does, and times the commands.
func (m vifMeasure) cycle(c lab.Card, command func(string, lab.Card) *exec.Cmd) (online, offline time.Duration, err error) {
	if err := m.lab.NetVM.AddCard(c); err != nil {
		return 0, 0, err
	}
	if online, err = m.timed(command("online", c)); err != nil {
		return 0, 0, err
	}
	if err := m.lab.NetVM.RemoveCard(c); err != nil {
		return 0, 0, err
	}
	offline, err = m.timed(command("offline", c))
	return online, offline, err
}

// timed runs a command in the netvm, from before its start until its end.
func (m vifMeasure) timed(cmd *exec.Cmd) (time.Duration, error) {
	began := time.Now()
	_, err := m.lab.NetVM.RunCommand(cmd)
	return time.Since(began), err
}

// script prepares the script, with the same environment as the program.
func (m vifMeasure) script(ctx context.Context, command string, c lab.Card) *exec.Cmd {
	cmd := m.lab.NetVM.HotplugCommand(ctx, command, c)
	shell := m.lab.NetVM.Command(ctx, "sh", "-ec", vifScript, "vif-script", command, c.MAC, fmt.Sprint(32752-c.DomID), c.IP)
	shell.Env = cmd.Env
	return shell
}

// cards are those of many AppVMs, whose ends are all in one host.
func (m vifMeasure) cards(n int) []lab.Card {
	out := make([]lab.Card, n)
	for i := range out {
		out[i] = lab.Card{
			DomID: 1000 + i, MAC: fmt.Sprintf("00:16:3e:00:%02x:%02x", i>>8, i&0xff), Peer: m.lab.Personal.Host, PeerName: fmt.Sprintf("many%d", i),
			IP: fmt.Sprintf("10.137.%d.%d fd09:24ef:4179::a89:1%03x", 16+i>>8, i&0xff, i),
		}
	}
	return out
}

// many brings many vifs up, some at a time, measures what that changes for the others, and takes them down.
func (m vifMeasure) many(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, manyTimeout)
	defer cancel()
	cards := m.cards(manyVifs)
	for _, c := range cards {
		if err := m.lab.NetVM.AddCard(c); err != nil {
			return err
		}
	}
	if err := m.lab.Work.Attach(ctx); err != nil {
		return err
	}
	began := time.Now()
	times, err := m.parallel(ctx, "online", cards)
	if err != nil {
		return err
	}
	took := time.Since(began)
	const edge = 16
	first, last := median(times[:edge]), median(times[manyVifs-edge:])
	m.out.printf("   %d vifs up, %d at a time: %s in all; the first %d %s each, the last %d %s (medians)\n\n", manyVifs, atATime,
		ms(took), edge, ms(first), edge, ms(last))
	return m.throughputs(ctx, cards)
}

const (
	// transfers is how many there are before the number of vifs changes, each of transferTime.
	transfers    = 3
	transferTime = 500 * time.Millisecond
	// transferBlock is how much is handed to the kernel at a time, in bytes.
	transferBlock = 128 << 10
	transferPort  = 9999
)

// throughputs compares what one AppVM gets through the netvm while it is alone with another, and while there are many,
// in turn.
func (m vifMeasure) throughputs(ctx context.Context, cards []lab.Card) error {
	turns := 3
	if m.lab.NetVM.Backend() != lab.NFTables {
		turns = 1 // with iptables it takes minutes to bring them all up
	}
	var few, many []float64
	for range turns {
		for _, phase := range []struct {
			rates *[]float64
			then  string
		}{{&many, "offline"}, {&few, "online"}} {
			for range transfers {
				rate, err := m.transfer(ctx)
				if err != nil {
					return err
				}
				*phase.rates = append(*phase.rates, rate)
			}
			if _, err := m.parallel(ctx, phase.then, cards); err != nil {
				return err
			}
		}
	}
	sort.Float64s(few)
	sort.Float64s(many)
	alone, beside := few[len(few)/2], many[len(many)/2]
	m.out.printf("   TCP from an AppVM through the netvm: %.2f Gbit/s, and beside %d other vifs %.2f Gbit/s: %.2f times as much (medians of %d)\n\n",
		alone, manyVifs, beside, beside/alone, len(many))
	return nil
}

// transfer sends from an AppVM to a host on the uplink for a while, and returns the rate in Gbit/s.
func (m vifMeasure) transfer(ctx context.Context) (rate float64, err error) {
	var listener net.Listener
	address := netip.AddrPortFrom(lab.Internet, transferPort).String()
	if err := m.lab.Home.Do(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", address)
		return err
	}); err != nil {
		return 0, err
	}
	sent := make(chan error, 1)
	go func() { sent <- m.lab.Work.Go(func() error { return send(ctx, address) }) }()
	conn, err := listener.Accept()
	if err != nil {
		return 0, errors.Join(err, listener.Close())
	}
	began := time.Now()
	bytes, err := io.Copy(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn})
	took := time.Since(began)
	err = errors.Join(err, <-sent, conn.Close(), listener.Close())
	return float64(bytes) * 8 / 1e9 / took.Seconds(), err
}

// send writes to a TCP server until transferTime has passed.
func send(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	block, until := make([]byte, transferBlock), time.Now().Add(transferTime)
	for time.Now().Before(until) {
		if _, err := conn.Write(block); err != nil {
			return errors.Join(err, conn.Close())
		}
	}
	return conn.Close()
}

// parallel runs one command for many cards, atATime of them at once, and returns how long each took, in the order of
// the cards.
func (m vifMeasure) parallel(ctx context.Context, command string, cards []lab.Card) ([]time.Duration, error) {
	times, errs := make([]time.Duration, len(cards)), make([]error, len(cards))
	next := make(chan int)
	var workers sync.WaitGroup
	for range atATime {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for i := range next {
				times[i], errs[i] = m.timed(m.lab.NetVM.HotplugCommand(ctx, command, cards[i]))
			}
		}()
	}
	for i := range cards {
		next <- i
	}
	close(next)
	workers.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", command, cards[i].Name(), err)
		}
	}
	return times, nil
}
