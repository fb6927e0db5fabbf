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
	// askTime is how long one client asks as fast as it gets answers.
	askTime = 3 * time.Second
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
				return m.programs(ctx, filepath.Join(filepath.Dir(c.netvmd), "netvmctl"))
			},
			m.answersOneClient,
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
	address := []string{"org.qubes_os.NetVM1", "/org/qubes_os/NetVM1"}
	commands := [][]string{
		{netvmctl, "status"},
		{netvmctl, "version"},
		append(append([]string{"busctl", "get-property"}, address...), address[0], "DnsTargets"),
		{"nmcli", "general", "status"},
		{"true"},
	}
	times := make([][]time.Duration, len(commands))
	for range statusRuns {
		for i, command := range commands {
			began := time.Now()
			if _, err := m.lab.NetVM.RunAs(ctx, lab.Nobody, command[0], command[1:]...); err != nil {
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

// answersOneClient measures how fast netvmd answers a client that waits for each answer.
func (m *measure) answersOneClient(ctx context.Context) error {
	client, err := m.lab.NetVM.BusAs(lab.Nobody)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // every call was answered
	before, err := m.lab.NetVM.Netvmd().Usage()
	if err != nil {
		return err
	}
	var times []time.Duration
	for began := time.Now(); time.Since(began) < askTime; {
		asked := time.Now()
		if err := lab.ReadAll(ctx, client); err != nil {
			return err
		}
		times = append(times, time.Since(asked))
	}
	after, err := m.lab.NetVM.Netvmd().Usage()
	if err != nil {
		return err
	}
	sorted := sortedTimes(times)
	m.out.printf("   one client reads all properties, %.0f times a second: median %s, p99 %s; netvmd needs %s of CPU for each\n",
		float64(len(times))/askTime.Seconds(), ms(quantile(sorted, 50)), ms(quantile(sorted, 99)),
		ms(after.Since(before).CPU/time.Duration(len(times))))
	return nil
}

// flooded measures the changes without and with a flood of calls.
func (m *measure) flooded(ctx context.Context) error {
	daemon := m.lab.NetVM.Netvmd()
	quiet, quietEpochs, err := m.changed(ctx)
	if err != nil {
		return err
	}
	before, err := daemon.Usage()
	if err != nil {
		return err
	}
	flood, err := m.lab.NetVM.Flood(ctx, lab.Nobody, floodRate, floodConnections)
	if err != nil {
		return err
	}
	loud, loudEpochs, err := m.changed(ctx)
	tally, stopErr := flood.Stop()
	if err := errors.Join(err, stopErr); err != nil {
		return err
	}
	after, err := daemon.Usage()
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(m.out.w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "   %d changes\tmedian\tp99\tslowest\t\n", m.changes)
	quantileRow(table, "signal → kernel", quiet)
	quantileRow(table, fmt.Sprintf("the same, under %d calls a second", floodRate), loud)
	differenceRow(table, quiet, loud)
	quiet, loud = fromTheCall(quietEpochs), fromTheCall(loudEpochs)
	quantileRow(table, "the call of NetworkManager → kernel", quiet)
	quantileRow(table, fmt.Sprintf("the same, under %d calls a second", floodRate), loud)
	differenceRow(table, quiet, loud)
	if err := table.Flush(); err != nil {
		return err
	}
	used := after.Since(before)
	m.out.printf("   the flood: %d calls by a user without rights over %d connections in %.1f s: %.0f answered a second, %d with a result\n",
		tally.Called, floodConnections, tally.Took.Seconds(), float64(tally.Answers())/tally.Took.Seconds(), tally.Answered)
	for _, name := range sortedNames(tally.Errors) {
		m.out.printf("      %d × %s\n", tally.Errors[name], name)
	}
	m.out.printf("   netvmd: %s of CPU for 1,000 calls, the changes included; resident memory %.1f MiB before, %.1f MiB after\n\n",
		ms(used.CPU*1000/time.Duration(max(1, tally.Called))), mib(before.Resident), mib(after.Resident))
	if tally.Lost > 0 {
		return fmt.Errorf("%d calls were never answered", tally.Lost)
	}
	return nil
}

// differenceRow adds to a table by how much the quantiles of some times are more than those of others.
func differenceRow(table *tabwriter.Writer, less, more []time.Duration) {
	a, b := sortedTimes(less), sortedTimes(more)
	fmt.Fprintf(table, "   that is more by\t%s\t%s\t%s\t\n", ms(quantile(b, 50)-quantile(a, 50)), ms(quantile(b, 99)-quantile(a, 99)),
		ms(b[len(b)-1]-a[len(a)-1]))
}

// fromTheCall is how long each change took from before the call of NetworkManager that brought it.
func fromTheCall(epochs []lab.Epoch) []time.Duration {
	var times []time.Duration
	for i := 1; i < len(epochs); i++ {
		times = append(times, epochs[i-1].Until.Sub(epochs[i].From))
	}
	return times
}

func sortedNames(counts map[string]int) []string {
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
