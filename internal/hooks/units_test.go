package hooks

import (
	"testing"
	"time"
)

// What systemd does with the pauses is tested under a real one, in packaging.
func TestPauseIsWhatTheUnitsStartLimitBears(t *testing.T) {
	const second = uint64(time.Second / time.Microsecond)
	for _, tc := range []struct {
		name       string
		properties map[string]any
		want       time.Duration
	}{
		{"systemd's default of 5 starts in 10 s leaves one for the admin", map[string]any{"StartLimitIntervalUSec": 10 * second, "StartLimitBurst": uint32(5)}, 2500 * time.Millisecond},
		{"one start an hour", map[string]any{"StartLimitIntervalUSec": 3600 * second, "StartLimitBurst": uint32(1)}, time.Hour},
		{"a limit that is never met", map[string]any{"StartLimitIntervalUSec": 10 * second, "StartLimitBurst": uint32(1000)}, leastPause},
		{"no limit", map[string]any{"StartLimitIntervalUSec": uint64(0), "StartLimitBurst": uint32(5)}, leastPause},
		{"an interval without end is bounded", map[string]any{"StartLimitIntervalUSec": ^uint64(0), "StartLimitBurst": uint32(2)}, time.Hour},
		{"nothing said", map[string]any{}, defaultPause},
		{"values of other types", map[string]any{"StartLimitIntervalUSec": "10s", "StartLimitBurst": 5}, defaultPause},
	} {
		if got := pauseOf(tc.properties); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}
