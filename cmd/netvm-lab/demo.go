package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"netvmd/internal/lab"
)

const demoAbout = `netvm-lab demo tells the story of AppVM DNS that follows the uplink, and of AppVMs'
cards: real DHCP, a real NetworkManager, real kernel rules, real DNS servers. It
takes less than a minute and fails if a step does not hold.`

const picture = `
   AppVMs            netvm                          networks
   work     ─ vif1.0 ┐  NetworkManager  ┌ home0   ─ home    192.0.2.0/24
   personal ─ vif2.0 ┴─ netvmd, nat   ──┼ office0 ─ office  198.51.100.0/24
                                        └ vpn0    ─ vpn     10.8.0.0/24

   An AppVM knows two DNS addresses, 10.139.1.1 and 10.139.1.2, for ever. Nobody
   has them: the netvm's kernel translates them to the resolvers of the uplink.
`

// probeInterval is how exactly the moment is seen at which the answers change.
const probeInterval = 2 * time.Millisecond

// stepTimeout bounds what one step may take; on a quiet machine the slowest takes 1 s.
const stepTimeout = 20 * time.Second

func demo(ctx context.Context, args []string) error {
	out := newTerminal(os.Stdout)
	pace := time.Duration(0)
	if out.live {
		pace = 1500 * time.Millisecond
	}
	c, err := parse("demo", demoAbout, args, func(f *flag.FlagSet) {
		f.DurationVar(&pace, "pace", pace, "time to read after each step; on a terminal 1.5s by default")
	})
	if err != nil {
		return err
	}
	backends, err := c.backends()
	if err != nil {
		return err
	}
	if err := lab.Enter(); err != nil {
		return err
	}
	for _, b := range backends {
		if err := c.withLab(ctx, b, "debug", func(l *lab.Lab) error {
			s := &story{lab: l, netvmctl: c.beside("netvmctl"), out: out, pace: pace}
			return s.tell(ctx, b)
		}); err != nil {
			return err
		}
	}
	return nil
}

// outcome is a line of the summary.
type outcome struct {
	title   string
	applied time.Duration // from the signal or the call to the kernel's acknowledgement; 0 = nothing was applied
	seen    time.Duration // from the same moment to the first right answer; 0 = not measured
	err     error
}

// story runs the steps one after the other and remembers how each went.
type story struct {
	lab      *lab.Lab
	netvmctl string // the program
	out      terminal
	pace     time.Duration
	outcomes []outcome
}

// tell runs the whole story; its error says that a step did not hold.
func (s *story) tell(ctx context.Context, b lab.Backend) error {
	home, office, vpn := s.lab.Home.Resolvers, s.lab.Office.Resolvers, s.lab.VPN.Resolvers
	none := netip.Addr{}
	s.out.printf("%s\n%s", s.out.paint(bold, fmt.Sprintf("AppVM DNS follows the uplink (%s)", b)), picture)
	steps := []func(context.Context) outcome{
		func(ctx context.Context) outcome {
			o := s.change(ctx, "DHCP brings resolvers", wanted{home[0], home[1]}, "nmcli connection up home")
			s.tables()
			return o
		},
		func(ctx context.Context) outcome {
			return s.change(ctx, "The user switches to another network", wanted{office[0], office[1]},
				"nmcli connection up office", "nmcli connection down home")
		},
		func(ctx context.Context) outcome {
			return s.change(ctx, "A VPN with its own DNS comes", wanted{vpn[0], vpn[0]}, "nmcli connection up vpn")
		},
		func(ctx context.Context) outcome {
			return s.change(ctx, "The VPN goes", wanted{office[0], office[1]}, "nmcli connection down vpn")
		},
		func(ctx context.Context) outcome {
			return s.change(ctx, "The uplink disappears: refused at once", wanted{none, none}, "nmcli connection down office")
		},
		func(ctx context.Context) outcome {
			return s.change(ctx, "The uplink returns", wanted{home[0], home[1]}, "nmcli connection up home")
		},
		func(ctx context.Context) outcome {
			return s.crash(ctx, "netvmd is killed, queries go on", home[0], home[1])
		},
		func(ctx context.Context) outcome {
			return s.missed(ctx, "The uplink changed while netvmd was dead", office[0], office[1])
		},
		func(ctx context.Context) outcome {
			return s.restart(ctx, "An AppVM starts again: its card goes and comes", wanted{office[0], office[1]})
		},
		func(ctx context.Context) outcome {
			return s.lie(ctx, "An AppVM lies about its address")
		},
		func(ctx context.Context) outcome {
			o := s.change(ctx, "Somebody wants other resolvers, over D-Bus", wanted{office[2], office[2]},
				"netvmctl dns set --persistent "+office[2].String())
			return s.shows(ctx, o, "netvmctl status")
		},
		func(ctx context.Context) outcome {
			return s.change(ctx, "And takes that back", wanted{office[0], office[1]}, "netvmctl dns clear")
		},
		func(ctx context.Context) outcome {
			return s.chain(ctx, "Another netvm comes between: nothing in it changes with the network", wanted{home[0], home[1]},
				"nmcli connection up home", "nmcli connection down office")
		},
	}
	for _, step := range steps {
		o := step(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.verdict(o)
		s.rest(ctx)
	}
	return s.summary()
}

// wanted is where the two virtual addresses must lead; the zero Addr = queries are refused.
type wanted [2]netip.Addr

// headline begins a step.
func (s *story) headline(title string) {
	s.out.printf("\n%s\n", s.out.paint(bold, fmt.Sprintf("%d. %s", len(s.outcomes)+1, title)))
}

// verdict ends a step.
func (s *story) verdict(o outcome) {
	s.outcomes = append(s.outcomes, o)
	if o.err != nil {
		s.out.field("", s.out.mark(false)+" "+o.err.Error())
	}
}

// rest gives the reader time.
func (s *story) rest(ctx context.Context) {
	select {
	case <-time.After(s.pace):
	case <-ctx.Done():
	}
}

// command shows a command and runs it in the netvm; it returns what the command printed.
func (s *story) command(ctx context.Context, line string) (string, error) {
	s.out.printf("   %s %s\n", s.out.paint(dim, "netvm #"), s.out.paint(cyan, line))
	words := strings.Fields(line)
	if words[0] == "netvmctl" {
		words[0] = s.netvmctl
	}
	return s.lab.NetVM.Run(ctx, words[0], words[1:]...)
}

// shows ends a step with what a command prints.
func (s *story) shows(ctx context.Context, o outcome, line string) outcome {
	s.out.printf("\n")
	text, err := s.command(ctx, line)
	o.err = errors.Join(o.err, err)
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		s.out.printf("%s\n", strings.TrimRight("   "+line, " "))
	}
	return o
}

// change runs commands that change the uplink and shows that the AppVMs' DNS follows.
func (s *story) change(ctx context.Context, title string, want wanted, lines ...string) outcome {
	s.headline(title)
	o := outcome{title: title}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	// An AppVM asks at short intervals, to see the moment at which the answers change.
	loop := s.lab.Work.AskLoop(ctx, lab.Virtual4[0], lab.Question{}, probeInterval)
	defer loop.Stop()
	began := time.Now()
	for _, line := range lines {
		if _, o.err = s.command(ctx, line); o.err != nil {
			return o
		}
	}
	status, err := s.lab.NetVM.AwaitTargets(ctx, want[:]...)
	if err != nil {
		o.err = err
		return o
	}
	arrived := status.ChangedAt.Add(-status.ApplyTime)
	first, err := loop.Await(ctx, began, func(a lab.Sample) bool {
		return a.Asked.Add(a.Took).After(arrived) && answers(a, want[0])
	})
	if err != nil {
		o.err = err
		return o
	}
	o.applied, o.seen = status.ApplyTime, first.Asked.Add(first.Took).Sub(arrived)
	s.says(status)
	o.err = errors.Join(s.asks(ctx, s.lab.Work, want), s.asks(ctx, s.lab.Personal, want))
	event := "NetworkManager's signal"
	if !strings.HasPrefix(lines[0], "nmcli") {
		event = "the call on D-Bus"
	}
	s.out.field("it took", fmt.Sprintf("%s from %s to the kernel; work saw it after %s", ms(o.applied), event, ms(o.seen)))
	return o
}

// answers tells whether a query ended as it must.
func answers(a lab.Sample, want netip.Addr) bool {
	if want.IsValid() {
		return a.Err == nil && a.Who == want
	}
	return errors.Is(a.Err, lab.ErrRefused)
}

// asks lets an AppVM ask both virtual addresses, and the first over TCP too, and shows what it sees.
func (s *story) asks(ctx context.Context, vm *lab.AppVM, want wanted) error {
	var errs []error
	label := vm.Name + " asks"
	for _, q := range []struct {
		virtual int
		tcp     bool
	}{{0, false}, {1, false}, {0, true}} {
		server, protocol := lab.Virtual4[q.virtual], "UDP"
		if q.tcp {
			protocol = "TCP"
		}
		a, err := vm.Ask(ctx, server, lab.Question{TCP: q.tcp})
		ok := answers(lab.Sample{Answer: a, Err: err}, want[q.virtual])
		saw := s.name(a.Who) + " answers"
		switch {
		case errors.Is(err, lab.ErrRefused):
			saw = "refused"
		case errors.Is(err, lab.ErrTimeout):
			saw = "no answer"
		case err != nil:
			saw = err.Error()
		}
		s.out.field(label, fmt.Sprintf("%s %s/%s: %s, %s", s.out.mark(ok), server, protocol, saw, ms(a.Took)))
		label = ""
		if !ok {
			errs = append(errs, fmt.Errorf("%s asked %s over %s: %s", vm.Name, server, protocol, saw))
		}
	}
	return errors.Join(errs...)
}

// name says which network a resolver belongs to.
func (s *story) name(resolver netip.Addr) string {
	for _, n := range []*lab.Network{s.lab.Home, s.lab.Office, s.lab.VPN} {
		for _, r := range n.Resolvers {
			if r == resolver {
				return fmt.Sprintf("%s (%s)", resolver, n.Name)
			}
		}
	}
	return resolver.String()
}
