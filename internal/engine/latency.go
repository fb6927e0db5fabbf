package engine

import (
	"math/bits"
	"time"

	"netvmd/internal/netvm"
)

const (
	// subBuckets is into how many buckets each doubling of a duration is divided: so many as subBits bits can number.
	subBuckets = 1 << subBits
	subBits    = 5
	// shortest and longest are the powers of two, in nanoseconds, between which durations are told apart: 1 µs to 69 s.
	shortest, longest = 10, 36
)

// latencies is a histogram of durations of fixed size, some 6 KiB, however many there are. Its percentiles are never too
// low, and too high by at most one part in subBuckets (3.2 %).
type latencies struct {
	count   uint64
	max     time.Duration
	buckets [(longest - shortest) * subBuckets]uint64
}

// add counts a duration. One below 1 µs counts as that, one above 69 s as that, but for the maximum.
func (l *latencies) add(d time.Duration) {
	l.count++
	l.max = max(l.max, d)
	l.buckets[bucketOf(d)]++
}

// bucketOf takes the position of the highest bit, and the bits that follow it.
func bucketOf(d time.Duration) int {
	ns := uint64(max(d, 0))
	ns = min(max(ns, 1<<shortest), 1<<longest-1)
	power := bits.Len64(ns) - 1
	sub := ns >> (power - subBits) & (subBuckets - 1)
	return (power-shortest)*subBuckets + int(sub)
}

// upperEdge is the longest duration that is counted in the bucket.
func upperEdge(bucket int) time.Duration {
	power, sub := bucket/subBuckets+shortest, uint64(bucket%subBuckets)
	return time.Duration((subBuckets+sub+1)<<(power-subBits) - 1)
}

// summary gives the percentiles by nearest rank: of all durations, that many percent are not longer.
func (l *latencies) summary() netvm.Latency {
	return netvm.Latency{
		Count: l.count, P50: l.percentile(50), P90: l.percentile(90), P99: l.percentile(99), Max: l.max,
	}
}

func (l *latencies) percentile(p uint64) time.Duration {
	rank := (l.count*p + 99) / 100
	var seen uint64
	for i, n := range l.buckets {
		if seen += n; seen >= rank && n > 0 {
			return min(upperEdge(i), l.max)
		}
	}
	return 0 // nothing was counted
}
