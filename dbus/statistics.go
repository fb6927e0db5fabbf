package dbus

import (
	"fmt"
	"net/netip"
	"time"

	"netvmd/internal/netvm"
)

// encodeStatistics gives the answer of GetStatistics.
func encodeStatistics(s netvm.Statistics, t netvm.Tally) dict {
	us := func(d time.Duration) uint64 { return uint64(d.Microseconds()) }
	return variants(map[string]any{
		"applies": s.Applies, "coalesced": s.Coalesced, "restored": s.Restored,
		"latency_count": s.Latency.Count, "latency_p50": us(s.Latency.P50), "latency_p90": us(s.Latency.P90),
		"latency_p99": us(s.Latency.P99), "latency_max": us(s.Latency.Max),
		"spoofed": t.Spoofed, "unserved": t.Unserved, "input_rejected": t.InputRejected, "forward_rejected": t.ForwardRejected,
		"counters": each(t.Counters, encodeCounter), "vifs": each(t.Traffic, encodeTraffic),
	})
}

func decodeStatistics(values dict) (s netvm.Statistics, t netvm.Tally, err error) {
	var counters, traffic []dict
	var p50, p90, p99, longest uint64
	err = take(values, map[string]any{
		"applies": &s.Applies, "coalesced": &s.Coalesced, "restored": &s.Restored,
		"latency_count": &s.Latency.Count, "latency_p50": &p50, "latency_p90": &p90, "latency_p99": &p99, "latency_max": &longest,
		"spoofed": &t.Spoofed, "unserved": &t.Unserved, "input_rejected": &t.InputRejected, "forward_rejected": &t.ForwardRejected,
		"counters": &counters, "vifs": &traffic,
	})
	if err != nil {
		return s, t, err
	}
	latencies, err := parseEach([]uint64{p50, p90, p99, longest}, span)
	if err != nil {
		return s, t, fmt.Errorf("latency: %w", err)
	}
	s.Latency.P50, s.Latency.P90, s.Latency.P99, s.Latency.Max = latencies[0], latencies[1], latencies[2], latencies[3]
	if t.Counters, err = parseEach(counters, decodeCounter); err != nil {
		return s, t, fmt.Errorf("counters: %w", err)
	}
	if t.Traffic, err = parseEach(traffic, decodeTraffic); err != nil {
		return s, t, fmt.Errorf("vifs: %w", err)
	}
	return s, t, nil
}

func encodeCounter(c netvm.Counter) dict {
	return variants(map[string]any{"table": c.Table, "name": c.Name, "packets": c.Packets, "bytes": c.Bytes})
}

func decodeCounter(values dict) (c netvm.Counter, err error) {
	err = take(values, map[string]any{"table": &c.Table, "name": &c.Name, "packets": &c.Packets, "bytes": &c.Bytes})
	return c, err
}

func encodeTraffic(t netvm.Traffic) dict {
	return variants(map[string]any{"name": t.Vif,
		"rx_bytes": t.RxBytes, "rx_packets": t.RxPackets, "tx_bytes": t.TxBytes, "tx_packets": t.TxPackets})
}

func decodeTraffic(values dict) (t netvm.Traffic, err error) {
	err = take(values, map[string]any{"name": &t.Vif,
		"rx_bytes": &t.RxBytes, "rx_packets": &t.RxPackets, "tx_bytes": &t.TxBytes, "tx_packets": &t.TxPackets})
	return t, err
}

func encodeRoute(r netvm.Route) dict {
	return variants(map[string]any{
		"destination": r.Destination.String(), "gateway": r.Gateway.String(), "genmask": r.Genmask.String(),
		"flags": r.Flags, "metric": r.Metric, "ref": r.Ref, "use": r.Use, "iface": r.Interface,
	})
}

func decodeRoute(values dict) (netvm.Route, error) {
	var r netvm.Route
	var destination, gateway, genmask string
	err := take(values, map[string]any{
		"destination": &destination, "gateway": &gateway, "genmask": &genmask,
		"flags": &r.Flags, "metric": &r.Metric, "ref": &r.Ref, "use": &r.Use, "iface": &r.Interface,
	})
	if err != nil {
		return r, err
	}
	addrs, err := parseEach([]string{destination, gateway, genmask}, netip.ParseAddr)
	if err != nil {
		return r, err
	}
	r.Destination, r.Gateway, r.Genmask = addrs[0], addrs[1], addrs[2]
	return r, nil
}
