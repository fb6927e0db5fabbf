package main

import (
	"context"
	"time"

	"netvmd/internal/lab"
)

// How an outage is measured: an AppVM asks at this interval, and waits so long for an answer that was lost.
const (
	outageInterval = time.Millisecond
	outageTimeout  = 300 * time.Millisecond
)

// outages flushes everything that there is of rules, vifs' admissions included, and measures for how long an AppVM gets
// no answer from its virtual DNS address.
func (m *measure) outages(ctx context.Context) ([]time.Duration, error) {
	flush := map[lab.Backend]string{
		lab.NFTables: "nft flush ruleset", lab.IPTablesNFT: "nft flush ruleset",
		lab.IPTablesLegacy: "for t in raw mangle nat filter; do iptables-legacy -t $t -F; done",
	}[m.lab.NetVM.Backend()]
	daemon := m.lab.NetVM.Netvmd()
	times := make([]time.Duration, 0, restoreRounds)
	for len(times) < restoreRounds {
		loop := m.lab.Work.AskLoop(ctx, lab.Virtual4[0], lab.Question{Timeout: outageTimeout}, outageInterval)
		_, err := loop.Await(ctx, time.Now(), func(s lab.Sample) bool { return s.Err == nil })
		mark := daemon.LogLength()
		if err == nil {
			_, err = m.lab.NetVM.Run(ctx, "sh", "-c", flush)
		}
		if err == nil {
			_, err = daemon.AwaitLog(ctx, mark, "restored our rules")
		}
		if err == nil {
			_, err = loop.Await(ctx, time.Now(), func(s lab.Sample) bool { return s.Err == nil })
		}
		samples := loop.Stop()
		if err != nil {
			return nil, err
		}
		times = append(times, lab.Outage(samples))
	}
	return times, nil
}
