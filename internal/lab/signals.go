package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/dbus"
)

// Signals are netvmd's PropertiesChanged, with the time at which each came: what a program has that follows netvmd.
type Signals struct {
	conn *godbus.Conn
	come chan arrived
}

// arrived is one signal.
type arrived struct {
	at      time.Time
	changed map[string]godbus.Variant
}

// Signals begins to take netvmd's signals. Close it.
func (v *NetVM) Signals(ctx context.Context) (*Signals, error) {
	conn, err := v.Bus()
	if err != nil {
		return nil, err
	}
	raw := make(chan *godbus.Signal, 1024)
	conn.Signal(raw)
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	err = conn.AddMatchSignalContext(ctx, godbus.WithMatchSender(dbus.Name), godbus.WithMatchObjectPath(dbus.Path),
		godbus.WithMatchInterface(busName+".Properties"), godbus.WithMatchMember("PropertiesChanged"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("follow netvmd's signals: %w", err), conn.Close())
	}
	s := &Signals{conn, make(chan arrived, cap(raw))}
	go s.stamp(raw)
	return s, nil
}

// stamp notes when signals come.
func (s *Signals) stamp(raw <-chan *godbus.Signal) {
	defer close(s.come)
	for signal := range raw {
		now := time.Now()
		if len(signal.Body) != 3 {
			continue
		}
		changed, _ := signal.Body[1].(map[string]godbus.Variant) // netvmd's alone come; nil has no members
		select {
		case s.come <- arrived{now, changed}:
		default: // nobody waits for that many
		}
	}
}

// Await waits for a signal that was not awaited before and in which a property satisfies, and tells when it came.
func (s *Signals) Await(ctx context.Context, property string, holds func(value any) bool) (time.Time, error) {
	for {
		select {
		case a, open := <-s.come:
			if !open {
				return time.Time{}, fmt.Errorf("netvmd's signal of %s: the bus is gone", property)
			}
			if value, is := a.changed[property]; is && holds(value.Value()) {
				return a.at, nil
			}
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("netvmd sends no signal of %s as wanted: %w", property, ctx.Err())
		}
	}
}

// Last tells when the last signal came that was not awaited and came before a moment; ok = there was one.
func (s *Signals) Last(before time.Time) (last time.Time, ok bool) {
	for {
		select {
		case a, open := <-s.come:
			if !open {
				return last, ok
			}
			if a.at.Before(before) {
				last, ok = a.at, true
			}
		default:
			return last, ok
		}
	}
}

// Any is for Await: whatever the property is now.
func Any(any) bool { return true }

// Close ends it.
func (s *Signals) Close() error { return s.conn.Close() }
