package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"time"

	"netvmd/internal/lab"
)

// lies is how many packets with another's address an AppVM sends.
const lies = 5

// restart takes an AppVM's card away and plugs it in again, as when its domain starts anew.
func (s *story) restart(ctx context.Context, title string, want wanted) outcome {
	s.headline(title)
	o := outcome{title: title}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	for _, step := range []struct {
		command string
		run     func(context.Context) error
	}{{"offline", s.lab.Personal.Detach}, {"online", s.lab.Personal.Attach}} {
		s.out.printf("   %s %s\n", s.out.paint(dim, "netvm #"), s.out.paint(cyan, "vif-route-netvm "+step.command))
		began := time.Now()
		if o.err = step.run(ctx); o.err != nil {
			return o
		}
		s.out.field("", fmt.Sprintf("%s, with the plugging and the process's start", ms(time.Since(began))))
	}
	s.tables()
	o.err = s.asks(ctx, s.lab.Personal, want)
	return o
}

// lie lets an AppVM send DNS queries with another one's address. They get nowhere, and are counted.
func (s *story) lie(ctx context.Context, title string) outcome {
	s.headline(title)
	o := outcome{title: title}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	before, err := s.dropped(ctx)
	if err != nil {
		o.err = err
		return o
	}
	if o.err = s.lab.Personal.Send(ctx, "eth0", s.forged()...); o.err != nil {
		return o
	}
	after, err := s.dropped(ctx)
	if err != nil {
		o.err = err
		return o
	}
	if after-before != lies {
		o.err = fmt.Errorf("%d of %d packets were counted as dropped", after-before, lies)
		return o
	}
	s.out.field("personal", fmt.Sprintf("sent %d DNS queries from work's address, %s", lies, s.lab.Work.Address))
	s.out.field("netvmctl says", fmt.Sprintf("%s %d more packets dropped (netvmctl firewall show)", s.out.mark(true), after-before))
	return o
}

// forged are queries that only the owner of their source address may send.
func (s *story) forged() []lab.Frame {
	// Parsing what stands in the lab's own plan cannot fail, and a frame without addresses is refused when it is sent.
	from, _ := net.ParseMAC(s.lab.Personal.Card.MAC)
	to, _ := net.ParseMAC(lab.VifMAC)
	frames := make([]lab.Frame, lies)
	for i := range frames {
		frames[i] = lab.Packet{
			FromMAC: from, ToMAC: to, From: s.lab.Work.Address, To: lab.Virtual4[0],
			Body: lab.UDP{FromPort: 4000, ToPort: 53, Payload: []byte("forged")},
		}
	}
	return frames
}

// spoofed are the counters, in either backend, of packets from vifs that lie about who sends them.
var spoofed = []string{"spoofed", "QBS-ALLOWED -j DROP"}

// dropped is how many packets the netvm dropped so far because their sender lied, by netvmctl.
func (s *story) dropped(ctx context.Context) (uint64, error) {
	text, err := s.lab.NetVM.Run(ctx, s.netvmctl, "--config", s.lab.NetVM.NetvmdConfig(), "--json", "firewall", "show")
	if err != nil {
		return 0, err
	}
	var shown struct {
		Counters []struct {
			Name    string `json:"name"`
			Packets uint64 `json:"packets"`
		} `json:"counters"`
	}
	if err := json.Unmarshal([]byte(text), &shown); err != nil {
		return 0, fmt.Errorf("netvmctl firewall show: %w", err)
	}
	var sum uint64
	for _, c := range shown.Counters {
		if slices.Contains(spoofed, c.Name) {
			sum += c.Packets
		}
	}
	return sum, nil
}
