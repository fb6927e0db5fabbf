package lab

import (
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/dbus"
)

// sink takes calls in netvmd's place and remembers what it was given.
type sink struct{ servers chan []string }

func (s sink) SetDnsOverride(servers []string, _ bool) *godbus.Error {
	s.servers <- servers
	return godbus.NewError(dbus.Interface+".Error.LimitsExceeded", nil)
}

func (s sink) Refresh() (bool, *godbus.Error) { return true, nil }

// pretend puts a sink in netvmd's place.
func pretend(t *testing.T, l *Lab) sink {
	t.Helper()
	s := sink{make(chan []string, 10_000)}
	conn, err := l.NetVM.Bus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.Export(s, dbus.Path, dbus.Interface); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName(dbus.Name, 0); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAGiantCallArrivesWholeAndItsAnswerIsTold(t *testing.T) {
	ctx, l := bareWithBus(t)
	s := pretend(t, l)
	answers, err := l.NetVM.CallWithGiants(ctx, Nobody, 2, 5000)
	if err != nil || len(answers) != 2 || answers[1] != dbus.Interface+".Error.LimitsExceeded" {
		t.Fatalf("answers %q, %v", answers, err)
	}
	servers := <-s.servers
	if len(servers) != 5000 || servers[0] != "192.0.2.55" || servers[4999] != "192.0.2.55" {
		t.Errorf("%d servers arrived", len(servers))
	}
}

func TestAFloodCountsWhatBecameOfItsCalls(t *testing.T) {
	ctx, l := bareWithBus(t)
	s := pretend(t, l)
	flood, err := l.NetVM.Flood(ctx, Nobody, 2000, 5)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // well-formed ones, of those that it makes in turn
		<-s.servers
	}
	tally, err := flood.Stop()
	if err != nil {
		t.Fatal(err)
	}
	total := tally.Answered
	for _, n := range tally.Errors {
		total += n
	}
	if tally.Lost != 0 || total != tally.Called || tally.Answered == 0 || tally.Errors[dbus.Interface+".Error.LimitsExceeded"] < 20 {
		t.Errorf("%+v", tally)
	}
}

func TestSomebodyWhoNeverReadsAnAnswerIsConnectedAllTheSame(t *testing.T) {
	ctx, l := bareWithBus(t)
	pretend(t, l)
	conn, err := l.NetVM.Bus()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	members := func() (n int) {
		t.Helper()
		var names []string
		if err := conn.BusObject().CallWithContext(ctx, busName+".ListNames", 0).Store(&names); err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	before := members()
	deaf, err := l.NetVM.Deaf(Nobody, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if after := members(); after != before+1 {
		t.Errorf("%d members, and %d with it", before, after)
	}
	if err := deaf.Close(); err != nil {
		t.Error(err)
	}
}
