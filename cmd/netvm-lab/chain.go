package main

import (
	"context"
	"fmt"

	"netvmd/internal/lab"
	"netvmd/internal/netvm"
)

// chain puts a proxy between the netvm and an AppVM, as Qubes' sys-firewall is, and shows that names resolve through both
// while the netvm changes the network, and that the proxy has nothing to do with it.
func (s *story) chain(ctx context.Context, title string, want wanted, lines ...string) outcome {
	s.headline(title)
	o := outcome{title: title}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	proxy, inner, err := s.lab.Chain(ctx, lab.Options{}, s.netvmctl)
	if err != nil {
		o.err = err
		return o
	}
	s.out.field("now", "inner ─ vif14.0 ─ proxy ─ vif3.0 ─ netvm ─ networks")
	if _, o.err = proxy.Await(ctx, passesOn); o.err != nil {
		return o
	}
	before, err := proxy.Status(ctx)
	if err != nil {
		o.err = err
		return o
	}
	s.says(before)
	for _, line := range lines {
		if _, o.err = s.command(ctx, line); o.err != nil {
			return o
		}
	}
	if _, o.err = s.lab.NetVM.AwaitTargets(ctx, want[:]...); o.err != nil {
		return o
	}
	if o.err = s.asks(ctx, inner, want); o.err != nil {
		return o
	}
	after, err := proxy.Status(ctx)
	if err != nil {
		o.err = err
		return o
	}
	if wrote := after.Statistics.Applies - before.Statistics.Applies; wrote > 0 {
		o.err = fmt.Errorf("the proxy's netvmd wrote to the kernel, %d times", wrote)
		return o
	}
	s.out.field("the proxy", "has noticed nothing")
	return o
}

// passesOn is a chained netvm that is online and sends queries on to the virtual addresses of the netvm above.
func passesOn(s netvm.Status) bool {
	return s.State == netvm.Online && lab.LeadsTo(lab.Virtual4...)(s)
}
