package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/dbus"
)

// floodTick is how often a flood sends what is due.
const floodTick = time.Millisecond

// call is a call of netvmd.
type call struct {
	method string // with its interface
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
	calls   [][]byte // floodCalls, encoded
	wires   []*wire
	answers chan string // the name of the error that each is; "" = none
	failed  chan error  // a connection ended

	enough, ended chan struct{}
	tally         FloodTally // valid after ended, like err
	err           error
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

// Flood starts to call netvmd as a user, this often a second, over so many connections, until Stop. When ctx ends,
// answers are not waited for any more.
func (v *NetVM) Flood(ctx context.Context, u User, rate, connections int) (*Flood, error) {
	f := &Flood{
		answers: make(chan string), failed: make(chan error, connections), enough: make(chan struct{}), ended: make(chan struct{}),
		tally: FloodTally{Errors: map[string]int{}},
	}
	for _, c := range floodCalls {
		message, err := c.encode()
		if err != nil {
			return nil, err
		}
		f.calls = append(f.calls, message)
	}
	for range connections {
		w, err := v.wireAs(u)
		if err != nil {
			return nil, errors.Join(err, f.hangUp())
		}
		f.wires = append(f.wires, w)
	}
	for _, w := range f.wires {
		go f.listen(w)
	}
	go f.run(ctx, rate)
	return f, nil
}

// Stop ends the flood, waits until all its calls are answered, and tells what became of them.
func (f *Flood) Stop() (FloodTally, error) {
	close(f.enough)
	<-f.ended
	return f.tally, errors.Join(f.err, f.hangUp())
}

// listen reads the answers on one connection until it is closed.
func (f *Flood) listen(w *wire) {
	for {
		answer, err := w.answer()
		if err != nil {
			f.failed <- err
			return
		}
		select {
		case f.answers <- answer:
		case <-f.ended:
			return
		}
	}
}

func (f *Flood) run(ctx context.Context, rate int) {
	defer close(f.ended)
	began, tick := time.Now(), time.NewTicker(floodTick)
	defer tick.Stop()
	t, ticks, enough, answers := &f.tally, tick.C, f.enough, 0
	for f.err == nil && (enough != nil || answers < t.Called) {
		select {
		case <-ctx.Done():
			f.err = fmt.Errorf("the flood was given no time for its answers: %w", ctx.Err())
		case err := <-f.failed:
			f.err = fmt.Errorf("the bus ended a connection of the flood: %w", err)
		case <-enough:
			ticks, enough = nil, nil
			t.Took = time.Since(began)
		case answer := <-f.answers:
			answers++
			if answer == "" {
				t.Answered++
			} else {
				t.Errors[answer]++
			}
		case <-ticks:
			for due := int(time.Since(began).Seconds() * float64(rate)); t.Called < due && f.err == nil; t.Called++ {
				f.err = f.wires[t.Called%len(f.wires)].call(f.calls[t.Called%len(f.calls)])
			}
		}
	}
	t.Lost = t.Called - answers
}

func (f *Flood) hangUp() error {
	var errs []error
	for _, w := range f.wires {
		errs = append(errs, w.Close())
	}
	return errors.Join(errs...)
}

// Call calls a method of netvmd, named with its interface, over a connection of the caller's, and waits for the answer.
func Call(ctx context.Context, conn *godbus.Conn, method string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	return conn.Object(dbus.Name, dbus.Path).CallWithContext(ctx, method, 0, args...).Err
}
