package lab

import (
	"context"
	"errors"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/dbus"
)

// floodTick is how often a flood sends what is due.
const floodTick = time.Millisecond

// call is a call of netvmd.
type call struct {
	method string
	args   []any
}

const propertiesInterface = "org.freedesktop.DBus.Properties"

// floodCalls are made in turn: what everybody may ask, what few may do, and what makes no sense.
var floodCalls = []call{
	{propertiesInterface + ".GetAll", []any{dbus.Interface}},
	{dbus.Interface + ".Refresh", nil},
	{propertiesInterface + ".Get", []any{dbus.Interface, "DnsTargets"}},
	{dbus.Interface + ".NoSuchMethod", nil},
	{dbus.Interface + ".ListRoutes", nil},
	{dbus.Interface + ".SetDnsOverride", []any{[]string{"192.0.2.55"}, true}},
	{dbus.Interface + ".GetStatistics", nil},
	{dbus.Interface + ".SetDnsOverride", []any{uint32(1), "no list"}},
	{"org.freedesktop.DBus.Introspectable.Introspect", nil},
	{dbus.Interface + ".ClearDnsOverride", nil},
	{propertiesInterface + ".Get", []any{dbus.Interface, "NoSuchProperty"}},
	{propertiesInterface + ".Set", []any{dbus.Interface, "State", godbus.MakeVariant("online")}},
}

// Flood is a user who calls netvmd at a rate, whether answers come or not.
type Flood struct {
	conns []*godbus.Conn
	calls chan *godbus.Call // those that are answered
	enough,
	ended chan struct{}
	tally FloodTally // valid after ended
}

// FloodTally counts what became of a flood's calls.
type FloodTally struct {
	Called   int
	Answered int            // with what was asked for
	Errors   map[string]int // by their names
	Lost     int            // never answered
	Took     time.Duration
}

// Answers is the number of calls that were answered, with a result or an error.
func (t FloodTally) Answers() int { return t.Called - t.Lost }

// Add adds another flood's.
func (t *FloodTally) Add(o FloodTally) {
	t.Called, t.Answered, t.Lost, t.Took = t.Called+o.Called, t.Answered+o.Answered, t.Lost+o.Lost, t.Took+o.Took
	for name, n := range o.Errors {
		t.Errors[name] += n
	}
}

// Flood starts to call netvmd as a user, this often a second, over so many connections, until Stop. When ctx ends,
// answers are not waited for any more.
func (v *NetVM) Flood(ctx context.Context, u User, rate, connections int) (*Flood, error) {
	f := &Flood{
		enough: make(chan struct{}), ended: make(chan struct{}),
		// godbus waits for room in it: that of two seconds is enough for who reads it between two ticks.
		calls: make(chan *godbus.Call, 2*rate),
		tally: FloodTally{Errors: map[string]int{}},
	}
	for range connections {
		conn, err := v.BusAs(u)
		if err != nil {
			return nil, errors.Join(err, f.hangUp())
		}
		f.conns = append(f.conns, conn)
	}
	go f.run(ctx, rate)
	return f, nil
}

// Stop ends the flood, waits until all its calls are answered, and tells what became of them.
func (f *Flood) Stop() (FloodTally, error) {
	close(f.enough)
	<-f.ended
	return f.tally, f.hangUp()
}

func (f *Flood) run(ctx context.Context, rate int) {
	defer close(f.ended)
	began, tick := time.Now(), time.NewTicker(floodTick)
	defer tick.Stop()
	ticks, enough, answers := tick.C, f.enough, 0
	for enough != nil || answers < f.tally.Called {
		select {
		case <-ctx.Done():
			f.tally.Lost = f.tally.Called - answers
			return
		case <-enough:
			ticks, enough = nil, nil
			f.tally.Took = time.Since(began)
		case c := <-f.calls:
			answers++
			f.tally.add(c.Err)
		case <-ticks:
			for due := int(time.Since(began).Seconds() * float64(rate)); f.tally.Called < due; f.tally.Called++ {
				f.call(ctx)
			}
		}
	}
}

// call makes the next call; its answer comes in f.calls.
func (f *Flood) call(ctx context.Context) {
	c := floodCalls[f.tally.Called%len(floodCalls)]
	conn := f.conns[f.tally.Called%len(f.conns)]
	conn.Object(dbus.Name, dbus.Path).GoWithContext(ctx, c.method, 0, f.calls, c.args...)
}

func (t *FloodTally) add(err error) {
	var e godbus.Error
	switch {
	case err == nil:
		t.Answered++
	case errors.As(err, &e):
		t.Errors[e.Name]++
	default:
		t.Errors[err.Error()]++
	}
}

func (f *Flood) hangUp() error {
	var errs []error
	for _, c := range f.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Call calls a method of netvmd, named with its interface, over a connection of the caller's, and waits for the answer.
func Call(ctx context.Context, conn *godbus.Conn, method string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	return conn.Object(dbus.Name, dbus.Path).CallWithContext(ctx, method, 0, args...).Err
}
