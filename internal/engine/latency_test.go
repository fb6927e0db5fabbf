package engine

import (
	"math/rand"
	"slices"
	"testing"
	"time"

	"netvmd/internal/netvm"
)

func TestLatencyNumbersAreThoseOfTheSortedList(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	for _, tc := range []struct {
		name string
		n    int
		next func() time.Duration
	}{
		{"one", 1, func() time.Duration { return 123456 * time.Nanosecond }},
		{"two", 2, func() time.Duration { return time.Duration(random.Intn(1e6)) * time.Microsecond }},
		{"all the same", 1000, func() time.Duration { return time.Millisecond }},
		{"even from 1 µs to 1 ms", 1000, func() time.Duration { return time.Duration(1000 + random.Intn(1e6)) }},
		{"many, of every size from 1 µs to 1 min", 100000, func() time.Duration {
			return min(time.Duration(1000<<random.Intn(26)+random.Intn(1e3)), time.Minute)
		}},
		{"a few long ones among many short", 10000, func() time.Duration {
			if random.Intn(50) == 0 {
				return time.Second + time.Duration(random.Intn(1e9))
			}
			return 100*time.Microsecond + time.Duration(random.Intn(1e5))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var l latencies
			var list []time.Duration
			for range tc.n {
				d := tc.next()
				l.add(d)
				list = append(list, d)
			}
			slices.Sort(list)
			s := l.summary()
			if s.Count != uint64(tc.n) || s.Max != list[len(list)-1] {
				t.Errorf("count %d, max %s; want %d, %s", s.Count, s.Max, tc.n, list[len(list)-1])
			}
			for p, got := range map[int]time.Duration{50: s.P50, 90: s.P90, 99: s.P99} {
				want := list[(len(list)*p+99)/100-1]
				if got < want || float64(got) > float64(want)*(1+1.0/subBuckets) {
					t.Errorf("p%d is %s; by the list %s", p, got, want)
				}
			}
		})
	}
}

func TestLatencyOfNothingIsZero(t *testing.T) {
	var l latencies
	if s := l.summary(); s != (netvm.Latency{}) {
		t.Errorf("%+v", s)
	}
}

func TestStrangeDurationsAreCounted(t *testing.T) {
	var l latencies
	for _, d := range []time.Duration{-time.Second, 0, 1, time.Hour, 1<<63 - 1} {
		l.add(d)
	}
	if s := l.summary(); s.Count != 5 || s.Max != 1<<63-1 || s.P50 > 2*time.Microsecond || s.P99 < time.Minute {
		t.Errorf("%+v", s)
	}
}

func TestEveryDurationIsInItsBucket(t *testing.T) {
	for i := range len(latencies{}.buckets) {
		if got := bucketOf(upperEdge(i)); got != i {
			t.Fatalf("the longest of bucket %d is in bucket %d", i, got)
		}
		if got := bucketOf(upperEdge(i) + 1); got != min(i+1, len(latencies{}.buckets)-1) {
			t.Fatalf("one longer than bucket %d's is in bucket %d", i, got)
		}
	}
}
