package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"netvmd/internal/lab"
	"netvmd/internal/netvm"
)

const benchAbout = `netvm-lab bench changes the resolvers again and again through a real NetworkManager
and prints how long netvmd takes, what a client that queries in a tight loop
loses, what a script would need for the same, and what netvmd costs when idle.
Then it runs netvmctl, and floods netvmd with calls while the resolvers change.
Last it brings vifs up and down with vif-route-netvm, one by one and many at a
time, and prints what that takes, and what many vifs cost an AppVM's throughput.
And it lets netvm-tray follow changes, in a panel under Xvfb.`

// parts are what can be measured alone.
var parts = []string{"dns", "bus", "vifs", "uplink", "tray"}

const (
	// changeTimeout bounds one change of resolvers; they take some 10 ms, most of it in NetworkManager.
	changeTimeout = 10 * time.Second
	// settleTime is for the garbage collector and the second look at conntrack to be done before idling is measured.
	settleTime = 10 * time.Second
	// idleCPU is how much processor a program may use while it idles: one of the kernel's ticks. Go's runtime now and then
	// gives memory back, in a burst of small steps.
	idleCPU = 10 * time.Millisecond
)

func bench(ctx context.Context, args []string) error {
	var m measure
	part := "all"
	c, err := parse("bench", benchAbout+"\n\n--backend all measures every backend.", args, func(f *flag.FlagSet) {
		f.StringVar(&part, "part", part, "what to measure: "+strings.Join(parts, ", ")+" or all")
		f.IntVar(&m.changes, "changes", 200, "`number` of changes")
		f.DurationVar(&m.idle, "idle", time.Minute, "how long to measure idling; 0 = not at all")
	})
	if err != nil {
		return err
	}
	if m.changes < 1 {
		return fmt.Errorf("bench: --changes %d: at least 1; %w", m.changes, errUsage)
	}
	if part != "all" && !slices.Contains(parts, part) {
		return fmt.Errorf("bench: --part %s: %s or all; %w", part, strings.Join(parts, ", "), errUsage)
	}
	backends, err := c.backends()
	if err != nil {
		return err
	}
	if err := lab.Enter(); err != nil {
		return err
	}
	m.out = newTerminal(os.Stdout)
	for _, b := range backends {
		if err := m.parts(ctx, c, b, part); err != nil {
			return fmt.Errorf("bench with %s: %w", b, err)
		}
	}
	return nil
}

// parts makes the measurements of one part, or of all of them.
func (m *measure) parts(ctx context.Context, c common, b lab.Backend, part string) error {
	measured := map[string]func() error{
		"dns":    func() error { return m.dns(ctx, c, b) },
		"bus":    func() error { return m.onTheBus(ctx, c, b) },
		"vifs":   func() error { return c.vifs(ctx, m.out, b) },
		"uplink": func() error { return c.uplinks(ctx, m.out) },
		"tray":   func() error { return m.tray(ctx, c, b) },
	}
	for _, name := range parts {
		if part != name && part != "all" {
			continue
		}
		if err := measured[name](); err != nil {
			return err
		}
	}
	return nil
}

// dns is the part of the benchmark that is about DNS, over one backend.
func (m *measure) dns(ctx context.Context, c common, b lab.Backend) error {
	m.out.printf("%s\n", m.out.paint(bold, fmt.Sprintf("netvmd with %s, %d changes through NetworkManager", b, m.changes)))
	return c.withLab(ctx, b, "info", func(l *lab.Lab) error {
		m.lab = l
		return m.all(ctx)
	})
}

// measure is one run of the benchmark over one backend.
type measure struct {
	changes int
	made    int // changes so far, one after the other
	idle    time.Duration
	out     terminal
	lab     *lab.Lab
}

// settle brings the netvm to the network where the resolvers are changed.
func (m *measure) settle(ctx context.Context) error {
	if err := m.lab.NetVM.NMCLI(ctx, "connection", "up", "home-static"); err != nil {
		return err
	}
	_, err := m.lab.NetVM.AwaitTargets(ctx, m.lab.Home.Resolvers[0], m.lab.Home.Resolvers[1])
	return err
}

// all makes the measurements, one after the other, and prints them as a table.
func (m *measure) all(ctx context.Context) error {
	if err := m.settle(ctx); err != nil {
		return err
	}
	table := tabwriter.NewWriter(m.out.w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "   what\tmedian\tp99\tslowest\t")
	quiet, err := m.row(ctx, table, "signal → kernel", m.applies)
	if err != nil {
		return err
	}
	var clients []client
	if _, err := m.row(ctx, table, "the same, under queries", func(ctx context.Context) ([]time.Duration, error) {
		var times []time.Duration
		times, clients, err = m.underQueries(ctx)
		return times, err
	}); err != nil {
		return err
	}
	script, err := m.row(ctx, table, "a script: one nft -f - each", m.script)
	if err != nil {
		return err
	}
	if _, err := m.row(ctx, table, "a deleted target is restored", m.restores); err != nil {
		return err
	}
	if _, err := m.row(ctx, table, "an AppVM is cut off by a flush", m.outages); err != nil {
		return err
	}
	if err := table.Flush(); err != nil {
		return err
	}
	m.out.printf("   netvmd needs 1/%.0f of the script's time (medians)\n\n", float64(script)/float64(quiet))
	strangers := m.clients(clients)
	return errors.Join(strangers, m.burst(ctx), m.idling(ctx, m.lab.NetVM.Netvmd()))
}

// row makes one measurement and adds its line to the table.
func (m *measure) row(ctx context.Context, table *tabwriter.Writer, what string,
	measured func(context.Context) ([]time.Duration, error)) (median time.Duration, err error) {
	times, err := measured(ctx)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	return quantileRow(table, what, times), nil
}

// quantileRow adds a line about these times to a table, and returns their median.
func quantileRow(table *tabwriter.Writer, what string, times []time.Duration) time.Duration {
	sorted := sortedTimes(times)
	fmt.Fprintf(table, "   %s\t%s\t%s\t%s\t\n", what, ms(quantile(sorted, 50)), ms(quantile(sorted, 99)), ms(sorted[len(sorted)-1]))
	return quantile(sorted, 50)
}

// sortedTimes leaves the times themselves in their order.
func sortedTimes(times []time.Duration) []time.Duration {
	out := slices.Clone(times)
	slices.Sort(out)
	return out
}

func median(times []time.Duration) time.Duration {
	return quantile(sortedTimes(times), 50)
}

// quantile is the nearest-rank quantile of sorted times.
func quantile(sorted []time.Duration, percent int) time.Duration {
	rank := (len(sorted)*percent + 99) / 100
	return sorted[rank-1]
}

// resolvers returns those of the n-th change: three take turns, so that a stale answer shows.
func (m *measure) resolvers(n int) (first, second netip.Addr) {
	home := m.lab.Home.Resolvers
	return home[n%3], home[(n+1)%3]
}

// change makes another change and waits until netvmd has published it.
func (m *measure) change(ctx context.Context, w *lab.Watch) (netvm.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	m.made++
	first, second := m.resolvers(m.made)
	if err := m.lab.NetVM.SetResolvers(ctx, m.lab.Home.Device, first, second); err != nil {
		return netvm.Status{}, err
	}
	return w.Await(ctx, lab.LeadsTo(first, second))
}

// applies measures the changes as netvmd does: from the signal's arrival to the kernel's acknowledgement.
func (m *measure) applies(ctx context.Context) ([]time.Duration, error) {
	times, _, err := m.changed(ctx, m.changes)
	return times, err
}

// changed makes that many changes, one after the other, and returns what each took and when the first virtual
// address led where.
func (m *measure) changed(ctx context.Context, changes int) ([]time.Duration, []lab.Epoch, error) {
	w := m.lab.NetVM.Watch(ctx)
	defer w.Close()
	first, err := w.Await(ctx, func(netvm.Status) bool { return true })
	if err != nil {
		return nil, nil, err
	}
	epochs := []lab.Epoch{{Resolver: first.DNSTargets[0].Resolver.Addr}}
	var times []time.Duration
	for n := 1; n <= changes; n++ {
		asked := time.Now()
		s, err := m.change(ctx, w)
		if err != nil {
			return nil, nil, fmt.Errorf("change %d: %w", n, err)
		}
		times = append(times, s.ApplyTime)
		epochs[len(epochs)-1].Until = s.ChangedAt
		// One reapply may be two steps of NetworkManager's, of which the status tells the last.
		epochs = append(epochs, lab.Epoch{From: asked, Resolver: s.DNSTargets[0].Resolver.Addr})
	}
	return times, epochs, nil
}

// client is somebody who queries in a tight loop, and what became of it.
type client struct {
	name      string
	tally     lab.Tally
	strangers int
}

// underQueries makes the changes while two clients query in a tight loop.
func (m *measure) underQueries(ctx context.Context) ([]time.Duration, []client, error) {
	fresh := m.lab.Work.AskLoop(ctx, lab.Virtual4[0], lab.Question{}, 0)
	defer fresh.Stop()
	kept := m.lab.Personal.AskLoop(ctx, lab.Virtual4[0], lab.Question{Port: 5353}, 0)
	defer kept.Stop()
	times, epochs, err := m.changed(ctx, m.changes)
	if err != nil {
		return nil, nil, err
	}
	var clients []client
	for _, c := range []struct {
		name string
		loop *lab.Loop
	}{{"a fresh port each", fresh}, {"one port for all", kept}} {
		samples := c.loop.Stop()
		if c.loop.Full() {
			return nil, nil, fmt.Errorf("the client with %s had no room for more answers before the changes were over", c.name)
		}
		clients = append(clients, client{c.name, lab.Count(samples), len(lab.Strangers(samples, epochs))})
	}
	return times, clients, nil
}

// clients prints what the clients saw; its error says that one of them was harmed.
func (m *measure) clients(clients []client) error {
	table := tabwriter.NewWriter(m.out.w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "   a client in a tight loop\tqueries\tanswered\tlost\trefused\tfailed\tby a third\tslowest\t")
	var errs []error
	for _, c := range clients {
		t := c.tally
		answered := t.Asked - t.Lost - t.Refused - t.Failed
		fmt.Fprintf(table, "   %s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t\n", c.name, t.Asked, answered, t.Lost, t.Refused, t.Failed, c.strangers, ms(t.Slowest))
		if answered != t.Asked || c.strangers > 0 {
			errs = append(errs, fmt.Errorf("queries from %s: %d lost, %d refused, %d failed, %d answered by a third",
				c.name, t.Lost, t.Refused, t.Failed, c.strangers), t.Failure)
		}
	}
	return errors.Join(append(errs, table.Flush())...)
}

// script measures the cheapest that a script could do for the same change: one nft process.
func (m *measure) script(ctx context.Context) ([]time.Duration, error) {
	const table = "table ip lab-script { map targets { type ipv4_addr : ipv4_addr; }; }\n"
	if _, err := m.lab.NetVM.RunInput(ctx, table, "nft", "-f", "-"); err != nil {
		return nil, err
	}
	times := make([]time.Duration, 0, m.changes)
	for n := 1; n <= m.changes; n++ {
		first, second := m.resolvers(n)
		change := fmt.Sprintf("flush map ip lab-script targets\nadd element ip lab-script targets { %s : %s, %s : %s }\n",
			lab.Virtual4[0], first, lab.Virtual4[1], second)
		began := time.Now()
		if _, err := m.lab.NetVM.RunInput(ctx, change, "nft", "-f", "-"); err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
	}
	_, err := m.lab.NetVM.Run(ctx, "nft", "delete", "table", "ip", "lab-script")
	return times, err
}

// restoreRounds is how often something is deleted to be restored.
const restoreRounds = 20

// restores deletes what leads to the resolvers behind netvmd's back, and measures
// from the start of the program that does it until netvmd has put it back.
func (m *measure) restores(ctx context.Context) ([]time.Duration, error) {
	damage := map[lab.Backend][]string{
		lab.NFTables:       {"nft", "flush", "map", "ip", "netvmd", "dns-targets"},
		lab.IPTablesNFT:    {"iptables-nft", "-t", "nat", "-F", "PR-QBS"},
		lab.IPTablesLegacy: {"iptables-legacy", "-t", "nat", "-F", "PR-QBS"},
	}[m.lab.NetVM.Backend()]
	daemon := m.lab.NetVM.Netvmd()
	times := make([]time.Duration, 0, restoreRounds)
	for len(times) < restoreRounds {
		mark, began := daemon.LogLength(), time.Now()
		if _, err := m.lab.NetVM.Run(ctx, damage[0], damage[1:]...); err != nil {
			return nil, err
		}
		if _, err := daemon.AwaitLog(ctx, mark, "restored our rules"); err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
	}
	return times, nil
}

// burst makes the changes without waiting for netvmd in between, and prints how many signals were coalesced.
func (m *measure) burst(ctx context.Context) error {
	before, err := m.lab.NetVM.Status(ctx)
	if err != nil {
		return err
	}
	for n := 1; n <= m.changes; n++ {
		first, second := m.resolvers(n)
		if err := m.lab.NetVM.SetResolvers(ctx, m.lab.Home.Device, first, second); err != nil {
			return fmt.Errorf("burst: change %d: %w", n, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	first, second := m.resolvers(m.changes)
	if _, err := m.lab.NetVM.AwaitTargets(ctx, first, second); err != nil {
		return fmt.Errorf("burst: %w", err)
	}
	after, err := m.lab.NetVM.Status(ctx) // what is awaited comes without statistics
	if err != nil {
		return fmt.Errorf("burst: %w", err)
	}
	was, is := before.Statistics, after.Statistics
	m.out.printf("\n   %d changes without a pause: %d transactions, %d signals coalesced, and the last one holds\n",
		m.changes, is.Applies-was.Applies, is.Coalesced-was.Coalesced)
	return nil
}

// idling measures what a program costs while nothing happens.
func (m *measure) idling(ctx context.Context, daemon *lab.Process) error {
	if m.idle == 0 {
		return nil
	}
	if err := wait(ctx, settleTime); err != nil {
		return err
	}
	before, err := daemon.Usage()
	if err != nil {
		return err
	}
	if err := wait(ctx, m.idle); err != nil {
		return err
	}
	after, err := daemon.Usage()
	if err != nil {
		return err
	}
	used := after.Since(before)
	m.out.printf("   idle for %s: %d CPU ticks (%s), %d wake-ups; resident memory %.1f MiB\n\n", m.idle, used.Ticks, ms(used.CPU),
		used.Switches, float64(used.Resident)/(1<<20))
	if used.CPU > idleCPU {
		return fmt.Errorf("%s of processor while idle", used.CPU)
	}
	return nil
}

// wait lets time pass: idling is the one thing that no event ends.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
