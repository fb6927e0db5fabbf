// Package fakebus plays services of the system bus, for what the real ones cannot be made to do on any machine: a
// NetworkManager with Wi-Fi and modems, a systemd-resolved that answers nonsense. A stand-in is an owner of the name on a
// real bus, and whoever follows the service follows the stand-in.
package fakebus

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

const (
	busName    = "org.freedesktop.DBus"
	properties = busName + ".Properties"
	// root is above the objects of every service that is played here.
	root = godbus.ObjectPath("/org/freedesktop")
	// callTimeout bounds a call to the bus itself, which takes a millisecond.
	callTimeout = 10 * time.Second
)

// Values are the properties of objects: by path, interface and name.
type Values map[godbus.ObjectPath]map[string]map[string]any

// Put gives a property a value, in an object that is made for it where there is none yet.
func (v Values) Put(path godbus.ObjectPath, iface, property string, value any) {
	if v[path] == nil {
		v[path] = map[string]map[string]any{}
	}
	if v[path][iface] == nil {
		v[path][iface] = map[string]any{}
	}
	v[path][iface][property] = value
}

// Service is a service whose properties are what its user says. It enforces what the bus and GLib enforce: an object or
// property that there is not is an error, and a signal has the sender's own name. Its methods may be called from any
// goroutine.
type Service struct {
	name, address string

	mu     sync.Mutex
	conn   *godbus.Conn
	values Values
	silent chan struct{} // not nil: questions are answered when it is closed
}

// New connects a service to the bus at an address. It has no name yet: see Own. Close it.
func New(name, address string) (*Service, error) {
	s := &Service{name: name, address: address, values: Values{}}
	return s, s.Connect()
}

// Connect opens a new connection, after the old one was closed or its bus is gone.
func (s *Service) Connect() error {
	conn, err := godbus.Connect(s.address)
	if err != nil {
		return fmt.Errorf("stand-in for %s: connect to %s: %w", s.name, s.address, err)
	}
	if err := conn.ExportSubtree(asked{s}, root, properties); err != nil {
		return errors.Join(fmt.Errorf("stand-in for %s: %w", s.name, err), conn.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = conn
	return nil
}

// Own takes the name, as a service does that starts.
func (s *Service) Own(ctx context.Context) error {
	var reply godbus.RequestNameReply
	if err := s.bus(ctx, "RequestName", &reply, s.name, uint32(godbus.NameFlagDoNotQueue)); err != nil {
		return err
	}
	if reply != godbus.RequestNameReplyPrimaryOwner {
		return fmt.Errorf("stand-in for %s: somebody else has the name", s.name)
	}
	return nil
}

// Disown gives the name back.
func (s *Service) Disown(ctx context.Context) error {
	var reply godbus.ReleaseNameReply
	return s.bus(ctx, "ReleaseName", &reply, s.name)
}

// bus calls the bus itself.
func (s *Service) bus(ctx context.Context, method string, answer any, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := s.connection().BusObject().CallWithContext(ctx, busName+"."+method, 0, args...).Store(answer); err != nil {
		return fmt.Errorf("stand-in for %s: %s: %w", s.name, method, err)
	}
	return nil
}

func (s *Service) connection() *godbus.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn
}

// Close leaves the bus without a word, as a service does that is killed.
func (s *Service) Close() error { return s.connection().Close() }

// Set gives a property another value without a word; a value of nil takes it away.
func (s *Service) Set(path godbus.ObjectPath, iface, property string, value any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values.Put(path, iface, property, value)
}

// Change sets a property and announces it, value and all.
func (s *Service) Change(path godbus.ObjectPath, iface, property string, value any) error {
	s.Set(path, iface, property, value)
	return s.announce(path, iface, map[string]godbus.Variant{property: godbus.MakeVariant(value)})
}

// Invalidate announces that a property is different, without saying how.
func (s *Service) Invalidate(path godbus.ObjectPath, iface, property string) error {
	return s.Emit(path, properties+".PropertiesChanged", iface, map[string]godbus.Variant{}, []string{property})
}

func (s *Service) announce(path godbus.ObjectPath, iface string, changed map[string]godbus.Variant) error {
	return s.Emit(path, properties+".PropertiesChanged", iface, changed, []string{})
}

// Emit sends a signal; its name begins with its interface.
func (s *Service) Emit(path godbus.ObjectPath, signal string, body ...any) error {
	if err := s.connection().Emit(path, signal, body...); err != nil {
		return fmt.Errorf("stand-in for %s: emit %s: %w", s.name, signal, err)
	}
	return nil
}

// Replace makes these all the objects that there are, and gives what is different, to be announced.
func (s *Service) replace(all Values) Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := Values{}
	for path, interfaces := range all {
		for iface, members := range interfaces {
			for property, value := range members {
				if !reflect.DeepEqual(s.values[path][iface][property], value) {
					changed.Put(path, iface, property, value)
				}
			}
		}
	}
	s.values = all
	return changed
}

// Hush makes the service take questions and not answer until the returned function is called.
func (s *Service) Hush() (speak func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	silent := make(chan struct{})
	s.silent = silent
	return func() {
		s.mu.Lock()
		s.silent = nil
		s.mu.Unlock()
		close(silent)
	}
}

// asked answers org.freedesktop.DBus.Properties for all objects.
type asked struct{ service *Service }

// Get is a method on the bus.
func (a asked) Get(question godbus.Message, iface, property string) (godbus.Variant, *godbus.Error) {
	all, err := a.GetAll(question, iface)
	if err != nil {
		return godbus.Variant{}, err
	}
	value, is := all[property]
	if !is {
		return godbus.Variant{}, refusal("InvalidArgs", "No such property “"+property+"”")
	}
	return value, nil
}

// GetAll is a method on the bus.
func (a asked) GetAll(question godbus.Message, iface string) (map[string]godbus.Variant, *godbus.Error) {
	s := a.service
	s.mu.Lock()
	silent := s.silent
	s.mu.Unlock()
	if silent != nil {
		<-silent
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	path, _ := question.Headers[godbus.FieldPath].Value().(godbus.ObjectPath)
	interfaces, is := s.values[path]
	if !is {
		return nil, refusal("UnknownMethod", fmt.Sprintf("Object does not exist at path “%s”", path))
	}
	out := map[string]godbus.Variant{}
	for property, value := range interfaces[iface] {
		if value != nil {
			out[property] = godbus.MakeVariant(value)
		}
	}
	return out, nil
}

func refusal(name, why string) *godbus.Error {
	return godbus.NewError(busName+".Error."+name, []any{why})
}
