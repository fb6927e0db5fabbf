package report

import (
	"strconv"

	"netvmd/internal/netvm"
	"netvmd/internal/words"
)

// Statistics is what netvmd and the kernel counted.
func Statistics(screen Screen, s netvm.Statistics, t netvm.Tally) string {
	p := &page{screen: screen}
	p.section("Targets", append([]line{
		say("%s in the kernel since netvmd started", words.Count(s.Applies, "change")),
		say("%s answered together with an earlier one", words.Count(s.Coalesced, "signal")),
		say("%s by others undone", words.Count(s.Restored, "change")),
	}, latency(s.Latency))...)
	p.section("Stopped", stopped(t)...)
	p.section("Traffic", passed(t.Traffic)...)
	p.section("Rules", counters(t.Counters)...)
	return p.String()
}

func latency(l netvm.Latency) line {
	if l.Count == 0 {
		return say("no change was measured yet")
	}
	return say("took median %s, p90 %s, p99 %s, max %s (of %d)",
		words.Took(l.P50), words.Took(l.P90), words.Took(l.P99), words.Took(l.Max), l.Count)
}

func stopped(t netvm.Tally) []line {
	return rows([][]string{
		{strconv.FormatUint(t.Spoofed, 10), "packets under an address that the AppVM does not have"},
		{strconv.FormatUint(t.Unserved, 10), "DNS queries without a resolver"},
		{strconv.FormatUint(t.InputRejected, 10), "packets to the netvm itself"},
		{strconv.FormatUint(t.ForwardRejected, 10), "packets to other AppVMs, or to where nothing is open"},
	})
}

func passed(traffic []netvm.Traffic) []line {
	var cells [][]string
	for _, t := range traffic {
		cells = append(cells, []string{t.Vif, "sent " + words.Size(t.RxBytes), words.Count(t.RxPackets, "packet"),
			"received " + words.Size(t.TxBytes), words.Count(t.TxPackets, "packet")})
	}
	return rows(cells)
}

// counters are those of the rules that met anything.
func counters(all []netvm.Counter) []line {
	var cells [][]string
	for _, c := range all {
		if c.Packets > 0 {
			cells = append(cells, []string{c.Table, c.Name, words.Count(c.Packets, "packet"), words.Size(c.Bytes)})
		}
	}
	return rows(cells)
}
