package report

import "netvmd/internal/netvm"

// StatisticsJSON is what GetStatistics tells, under its names.
type StatisticsJSON struct {
	Applies         uint64          `json:"applies"`
	Coalesced       uint64          `json:"coalesced"`
	Restored        uint64          `json:"restored"`
	LatencyCount    uint64          `json:"latency_count"`
	LatencyP50      int64           `json:"latency_p50"` // microseconds, these four
	LatencyP90      int64           `json:"latency_p90"`
	LatencyP99      int64           `json:"latency_p99"`
	LatencyMax      int64           `json:"latency_max"`
	Spoofed         uint64          `json:"spoofed"` // packets, these four
	Unserved        uint64          `json:"unserved"`
	InputRejected   uint64          `json:"input_rejected"`
	ForwardRejected uint64          `json:"forward_rejected"`
	Counters        []netvm.Counter `json:"counters"`
	Vifs            []TrafficJSON   `json:"vifs"`
}

// TrafficJSON is what passed a vif: received is what the AppVM sent.
type TrafficJSON struct {
	Name      string `json:"name"`
	RxBytes   uint64 `json:"rx_bytes"`
	RxPackets uint64 `json:"rx_packets"`
	TxBytes   uint64 `json:"tx_bytes"`
	TxPackets uint64 `json:"tx_packets"`
}

// JSONOfStatistics is what netvmd and the kernel counted, as JSON shows it.
func JSONOfStatistics(s netvm.Statistics, t netvm.Tally) StatisticsJSON {
	l := s.Latency
	return StatisticsJSON{
		Applies: s.Applies, Coalesced: s.Coalesced, Restored: s.Restored, LatencyCount: l.Count,
		LatencyP50: l.P50.Microseconds(), LatencyP90: l.P90.Microseconds(), LatencyP99: l.P99.Microseconds(), LatencyMax: l.Max.Microseconds(),
		Spoofed: t.Spoofed, Unserved: t.Unserved, InputRejected: t.InputRejected, ForwardRejected: t.ForwardRejected,
		Counters: append([]netvm.Counter{}, t.Counters...), Vifs: JSONOfTraffic(t.Traffic),
	}
}

// JSONOfTraffic is what passed the vifs, as JSON shows it.
func JSONOfTraffic(traffic []netvm.Traffic) []TrafficJSON {
	return each(traffic, func(t netvm.Traffic) TrafficJSON {
		return TrafficJSON{t.Vif, t.RxBytes, t.RxPackets, t.TxBytes, t.TxPackets}
	})
}

// RouteJSON is a row of ListRoutes.
type RouteJSON struct {
	Destination string `json:"destination"`
	Gateway     string `json:"gateway"`
	Genmask     string `json:"genmask"`
	Flags       string `json:"flags"`
	Metric      uint32 `json:"metric"`
	Ref         uint32 `json:"ref"`
	Use         uint32 `json:"use"`
	Interface   string `json:"iface"`
}

// JSONOfRoutes is the routing table, as JSON shows it.
func JSONOfRoutes(routes []netvm.Route) []RouteJSON {
	return each(routes, func(r netvm.Route) RouteJSON {
		return RouteJSON{r.Destination.String(), r.Gateway.String(), r.Genmask.String(), r.Flags, r.Metric, r.Ref, r.Use, r.Interface}
	})
}
