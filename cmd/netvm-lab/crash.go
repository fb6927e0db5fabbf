package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"netvmd/internal/lab"
	"netvmd/internal/netvm"
)

// crashQueries is how many queries must go well while netvmd is dead, and again while it starts.
const crashQueries = 300

// crash kills netvmd and starts it again while queries go on.
func (s *story) crash(ctx context.Context, title string, want ...netip.Addr) outcome {
	s.headline(title)
	o := outcome{title: title}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	var loops []*lab.Loop
	for _, q := range []struct {
		vm      *lab.AppVM
		virtual int
		ask     lab.Question
	}{{s.lab.Work, 0, lab.Question{}}, {s.lab.Work, 1, lab.Question{Port: 5353}}, {s.lab.Personal, 0, lab.Question{TCP: true}}} {
		loop := q.vm.AskLoop(ctx, lab.Virtual4[q.virtual], q.ask, 0)
		defer loop.Stop()
		loops = append(loops, loop)
	}
	s.out.printf("   %s %s\n", s.out.paint(dim, "netvm #"), s.out.paint(cyan, "kill -9 $(pidof netvmd)"))
	if o.err = s.lab.NetVM.KillNetvmd(ctx); o.err != nil {
		return o
	}
	if o.err = pass(ctx, loops, crashQueries); o.err != nil {
		return o
	}
	status, err := s.startAgain(ctx, want)
	if err != nil {
		o.err = err
		return o
	}
	if o.err = pass(ctx, loops, crashQueries); o.err != nil {
		return o
	}
	s.says(status)
	var all []lab.Sample
	for _, l := range loops {
		all = append(all, l.Stop()...)
	}
	o.err = s.unharmed(all, want)
	return o
}

// startAgain starts netvmd and waits until the virtual addresses lead where they must.
func (s *story) startAgain(ctx context.Context, want []netip.Addr) (netvm.Status, error) {
	s.out.printf("   %s %s\n", s.out.paint(dim, "netvm #"), s.out.paint(cyan, "netvmd --config netvmd.toml"))
	if err := s.lab.NetVM.StartNetvmd(ctx); err != nil {
		return netvm.Status{}, err
	}
	return s.lab.NetVM.AwaitTargets(ctx, want...)
}

// pass waits until each loop has asked n more.
func pass(ctx context.Context, loops []*lab.Loop, n int) error {
	for _, l := range loops {
		left := n
		if _, err := l.Await(ctx, time.Now(), func(lab.Sample) bool { left--; return left == 0 }); err != nil {
			return err
		}
	}
	return nil
}

// unharmed shows what became of the queries; all must have been answered by the current resolvers.
func (s *story) unharmed(all []lab.Sample, want []netip.Addr) error {
	t := lab.Count(all)
	good := 0
	for _, r := range want {
		good += t.By[r]
	}
	ok := good == t.Asked
	s.out.field("AppVMs ask", fmt.Sprintf("%s %d queries, from fresh ports, from one port, and over TCP: %d answered by the current "+
		"resolvers, %d lost, %d refused; the slowest took %s", s.out.mark(ok), t.Asked, good, t.Lost, t.Refused, ms(t.Slowest)))
	if !ok {
		return errors.Join(fmt.Errorf("%d of %d queries were not answered as they must: %d lost, %d refused, %d failed",
			t.Asked-good, t.Asked, t.Lost, t.Refused, t.Failed), t.Failure)
	}
	return nil
}

// missed changes the uplink while netvmd is dead.
func (s *story) missed(ctx context.Context, title string, want ...netip.Addr) outcome {
	s.headline(title)
	o := outcome{title: title}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	s.out.printf("   %s %s\n", s.out.paint(dim, "netvm #"), s.out.paint(cyan, "kill -9 $(pidof netvmd)"))
	if o.err = s.lab.NetVM.KillNetvmd(ctx); o.err != nil {
		return o
	}
	for _, line := range []string{"nmcli connection up office", "nmcli connection down home"} {
		if _, o.err = s.command(ctx, line); o.err != nil {
			return o
		}
	}
	began := time.Now()
	status, err := s.startAgain(ctx, want)
	if err != nil {
		o.err = err
		return o
	}
	ready := time.Since(began)
	s.says(status)
	o.err = s.asks(ctx, s.lab.Work, wanted{want[0], want[1]})
	s.out.field("it took", ms(ready)+" from the start of the program to the right targets")
	return o
}

// says shows what netvmd says about itself.
func (s *story) says(status netvm.Status) {
	var targets []string
	for _, t := range status.DNSTargets {
		to := "refused"
		if t.Served() {
			to = t.Resolver.Addr.String()
		}
		targets = append(targets, t.Virtual.String()+" → "+to)
	}
	s.out.field("netvmd says", strings.Join(targets, ", ")+"\n"+status.DNSReason)
	for _, problem := range status.Problems {
		s.out.field("", "problem: "+problem)
	}
}

// tables prints the routing tables of the netvm and of an AppVM.
func (s *story) tables() {
	for _, h := range []struct {
		title string
		host  *lab.Host
	}{{"routes of the netvm", s.lab.NetVM.Host}, {"routes of the AppVM work", s.lab.Work.Host}} {
		routes, err := h.host.Routes()
		if err != nil {
			s.out.field("", err.Error())
			continue
		}
		s.out.routes(h.title, routes)
	}
}

// summary ends the story.
func (s *story) summary() error {
	s.out.printf("\n%s\n", s.out.paint(bold, "Summary"))
	table := tabwriter.NewWriter(s.out.w, 0, 0, 2, ' ', 0)
	// The mark is as wide in every line, coloured or not, so it does not disturb the columns.
	fmt.Fprintf(table, "   %s\tstep\tin the kernel\tseen by an AppVM\n", s.out.paint("0", " "))
	failed := 0
	for _, o := range s.outcomes {
		applied, seen := "", ""
		if o.seen != 0 {
			applied, seen = ms(o.applied), ms(o.seen)
		}
		if o.err != nil {
			failed++
		}
		fmt.Fprintf(table, "   %s\t%s\t%s\t%s\n", s.out.mark(o.err == nil), o.title, applied, seen)
	}
	_ = table.Flush() // the terminal is all there is to tell
	if failed > 0 {
		return fmt.Errorf("%d of %d steps did not hold", failed, len(s.outcomes))
	}
	s.out.printf("\n   All %d steps held. Times are from NetworkManager's signal, or netvmctl's call.\n", len(s.outcomes))
	return nil
}
