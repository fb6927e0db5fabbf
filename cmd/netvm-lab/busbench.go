package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"netvmd/internal/lab"
)

const (
	// statusRuns is how often netvmctl is run, and every other program beside it.
	statusRuns = 200
	// floodRate is how often a second a user without rights calls netvmd, over so many connections.
	floodRate, floodConnections = 1000, 50
	// floodTurns is how often that begins and ends while the resolvers change, and floodTime how long it lasts by itself.
	floodTurns = 4
	floodTime  = 5 * time.Second
	// askTime is how long one client asks as fast as it gets answers.
	askTime = time.Second
)

// netvmd's name on the bus, which is also its interface's, and its object.
const (
	netvmdName = "org.qubes_os.NetVM1"
	netvmdPath = "/org/qubes_os/NetVM1"
)

// onTheBus is the part of the benchmark that is about D-Bus and netvmctl, over one backend.
func (m *measure) onTheBus(ctx context.Context, c common, b lab.Backend) error {
	m.out.printf("%s\n", m.out.paint(bold, "netvmd on the bus, and netvmctl, with "+string(b)))
	return c.withLab(ctx, b, "info", func(l *lab.Lab) error {
		m.lab = l
		if err := m.settle(ctx); err != nil {
			return err
		}
		for _, step := range []func(context.Context) error{
			func(ctx context.Context) error {
				return m.programs(ctx, c.beside("netvmctl"))
			},
			m.answers,
			m.flooded,
		} {
			if err := step(ctx); err != nil {
				return fmt.Errorf("bus: %w", err)
			}
		}
		return nil
	})
}

// programs measures whole processes, from before their start until their end, in turn.
func (m *measure) programs(ctx context.Context, netvmctl string) error {
	commands := [][]string{
		{netvmctl, "status"},
		{netvmctl, "version"},
		{"busctl", "get-property", netvmdName, netvmdPath, netvmdName, "DnsTargets"},
		{"nmcli", "general", "status"},
		{"true"},
	}
	times := make([][]time.Duration, len(commands))
	for range statusRuns {
		for i, command := range commands {
			began := time.Now()
			if _, err := m.lab.NetVM.Run(ctx, command[0], command[1:]...); err != nil {
				return err
			}
			times[i] = append(times[i], time.Since(began))
		}
	}
	table := tabwriter.NewWriter(m.out.w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "   a whole process, %d times\tmedian\tp99\tslowest\t\n", statusRuns)
	for i, command := range commands {
		quantileRow(table, filepath.Base(command[0])+" "+strings.Join(command[1:min(2, len(command))], " "), times[i])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	m.out.printf("\n")
	return nil
}

// answers measures how fast netvmd answers a client that waits for each answer, and what that costs.
func (m *measure) answers(ctx context.Context) error {
	client, err := m.lab.NetVM.BusAs(lab.Nobody)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // every call was answered
	table := tabwriter.NewWriter(m.out.w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "   one client, a call after the other\ta second\tmedian\tp99\tnetvmd's CPU for each\t")
	for _, call := range [][]any{
		{"org.freedesktop.DBus.Properties.Get", netvmdName, "DnsTargets"}, {"org.freedesktop.DBus.Properties.GetAll", netvmdName},
		{netvmdName + ".Refresh"},
	} {
		method := call[0].(string)
		before, err := m.lab.NetVM.Netvmd().Usage()
		if err != nil {
			return err
		}
		var times []time.Duration
		for began := time.Now(); time.Since(began) < askTime; {
			asked := time.Now()
			// That it may not do everything is an answer too.
			if err := lab.Call(ctx, client, method, call[1:]...); err != nil && ctx.Err() != nil {
				return err
			}
			times = append(times, time.Since(asked))
		}
		after, err := m.lab.NetVM.Netvmd().Usage()
		if err != nil {
			return err
		}
		sorted := sortedTimes(times)
		fmt.Fprintf(table, "   %s\t%.0f\t%s\t%s\t%s\t\n", method[strings.LastIndex(method, ".")+1:], float64(len(times))/askTime.Seconds(),
			ms(quantile(sorted, 50)), ms(quantile(sorted, 99)), ms(after.Since(before).CPU/time.Duration(len(times))))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	m.out.printf("\n")
	return nil
}

// timesOf is how long changes took, from the signal's arrival in netvmd and from before the call of NetworkManager that
// brought it, until the kernel had it.
type timesOf struct{ signal, call []time.Duration }

// more makes some more changes.
func (t *timesOf) more(ctx context.Context, m *measure) error {
	times, epochs, err := m.changed(ctx, max(1, m.changes/floodTurns))
	t.signal = append(t.signal, times...)
	for i := 1; i < len(epochs); i++ {
		t.call = append(t.call, epochs[i-1].Until.Sub(epochs[i].From))
	}
	return err
}

// flooded measures changes without and with a flood of calls, in turn, and what a flood alone costs.
func (m *measure) flooded(ctx context.Context) error {
	var quiet, loud timesOf
	for range floodTurns {
		if err := quiet.more(ctx, m); err != nil {
			return err
		}
		if _, err := m.flood(ctx, func() error { return loud.more(ctx, m) }); err != nil {
			return err
		}
	}
	if err := m.compare(quiet, loud); err != nil {
		return err
	}
	before, err := m.lab.NetVM.Netvmd().Usage()
	if err != nil {
		return err
	}
	tally, err := m.flood(ctx, func() error { return wait(ctx, floodTime) })
	if err != nil {
		return err
	}
	after, err := m.lab.NetVM.Netvmd().Usage()
	if err != nil {
		return err
	}
	m.drowned(tally)
	m.out.printf("   netvmd: %s of CPU for 1,000 of these calls; resident memory %.1f MiB before, %.1f MiB after\n\n",
		ms(after.Since(before).CPU*1000/time.Duration(max(1, tally.Called))), mib(before.Resident), mib(after.Resident))
	return nil
}

// flood does something while a user without rights floods netvmd. A call that is never answered is an error.
func (m *measure) flood(ctx context.Context, meanwhile func() error) (lab.FloodTally, error) {
	flood, err := m.lab.NetVM.Flood(ctx, lab.Nobody, floodRate, floodConnections)
	if err != nil {
		return lab.FloodTally{}, err
	}
	err = meanwhile()
	tally, stopErr := flood.Stop()
	if tally.Lost > 0 {
		stopErr = errors.Join(stopErr, fmt.Errorf("%d calls were never answered", tally.Lost))
	}
	return tally, errors.Join(err, stopErr)
}

// compare prints how long changes took without and with a flood.
func (m *measure) compare(quiet, loud timesOf) error {
	table := tabwriter.NewWriter(m.out.w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "   %d changes, in turn without and with a flood\tmedian\tp99\tslowest\t\n", len(quiet.signal)+len(loud.signal))
	for _, c := range []struct {
		what        string
		quiet, loud []time.Duration
	}{{"signal → kernel", quiet.signal, loud.signal}, {"the call of NetworkManager → kernel", quiet.call, loud.call}} {
		quantileRow(table, c.what, c.quiet)
		quantileRow(table, fmt.Sprintf("the same, under %d calls a second", floodRate), c.loud)
		differenceRow(table, c.quiet, c.loud)
	}
	return table.Flush()
}

// drowned prints what became of the flood's calls.
func (m *measure) drowned(t lab.FloodTally) {
	m.out.printf("\n   %d calls by a user without rights over %d connections: %.0f answered a second, %d with a result\n",
		t.Called, floodConnections, float64(t.Answers())/t.Took.Seconds(), t.Answered)
	names := make([]string, 0, len(t.Errors))
	for name := range t.Errors {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		m.out.printf("      %d × %s\n", t.Errors[name], name)
	}
}

// differenceRow adds to a table by how much the quantiles of some times are more than those of others.
func differenceRow(table *tabwriter.Writer, less, more []time.Duration) {
	a, b := sortedTimes(less), sortedTimes(more)
	fmt.Fprintf(table, "   that is more by\t%s\t%s\t%s\t\n", ms(quantile(b, 50)-quantile(a, 50)), ms(quantile(b, 99)-quantile(a, 99)),
		ms(b[len(b)-1]-a[len(a)-1]))
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
