// Package systembus connects to the system bus, with the deadlines that godbus lacks, and waits for a bus that is away.
// nmhook and dbus each have a connection of their own. What strangers send over the bus is kept away from godbus.
package systembus

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// connectTimeout bounds connecting, authentication and Hello together. The bus answers in a millisecond.
const connectTimeout = 5 * time.Second

// defaultSocket is the system bus's, D-Bus specification, "Well-known Message Bus Instances".
const defaultSocket = "/run/dbus/system_bus_socket"

// Connect opens a connection of the caller's own, over which it calls others; of signals only the bus's come, in order. It
// ends with ctx. The error wraps fs.ErrNotExist where there is no bus at all.
func Connect(ctx context.Context) (*godbus.Conn, error) { return Listen(ctx, nil) }

// Listen opens a connection like Connect's, to which also the signals come of senders that heed says yes to. It is given
// unique names, as anybody may address a signal to anybody.
func Listen(ctx context.Context, heed func(sender string) bool) (*godbus.Conn, error) {
	return open(ctx, &sieve{heed: heed})
}

// open connects, authenticates and says Hello, through a sieve.
func open(ctx context.Context, s *sieve) (*godbus.Conn, error) {
	socket, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	s.Conn, s.in = socket, bufio.NewReaderSize(socket, readAhead)
	conn, err := godbus.NewConn(s, godbus.WithContext(ctx), godbus.WithSerialGenerator(&s.serial),
		godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to the system bus: %w", err), socket.Close())
	}
	if err := begin(conn, socket); err != nil {
		_ = conn.Close() // the error is what counts
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("no answer within %s", connectTimeout)
		}
		return nil, fmt.Errorf("connect to the system bus: %w", cmp.Or(ctx.Err(), err))
	}
	return conn, nil
}

// addressKey is the key of a bus's address in a context.
type addressKey struct{}

// At returns a context under which the system bus is the one at an address, as DBUS_SYSTEM_BUS_ADDRESS would have it: for a
// program that speaks with more machines than its own.
func At(ctx context.Context, address string) context.Context {
	return context.WithValue(ctx, addressKey{}, address)
}

// address is where the system bus listens.
func address(ctx context.Context) string {
	if at, is := ctx.Value(addressKey{}).(string); is {
		return at
	}
	return os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
}

// dial connects to the first address that takes it.
func dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	sockets := sockets(address(ctx))
	err := errors.New("DBUS_SYSTEM_BUS_ADDRESS names no Unix socket")
	for _, socket := range sockets {
		var conn net.Conn
		if conn, err = (&net.Dialer{}).DialContext(ctx, "unix", socket); err == nil {
			return conn, nil
		}
	}
	return nil, fmt.Errorf("connect to the system bus: %w", err)
}

// begin authenticates and says Hello.
func begin(conn *godbus.Conn, socket net.Conn) error {
	if err := socket.SetDeadline(time.Now().Add(connectTimeout)); err != nil { // godbus knows no deadline here
		return err
	}
	if err := conn.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err != nil {
		return err
	}
	if err := conn.Hello(); err != nil {
		return err
	}
	return socket.SetDeadline(time.Time{})
}

// sockets finds the Unix sockets in a list of addresses (D-Bus specification, "Server Addresses"); the name of an abstract
// one begins with "@".
func sockets(addresses string) []string {
	if addresses == "" {
		return []string{defaultSocket}
	}
	var found []string
	for _, address := range strings.Split(addresses, ";") {
		options, is := strings.CutPrefix(address, "unix:")
		if !is {
			continue
		}
		for _, option := range strings.Split(options, ",") {
			key, value, _ := strings.Cut(option, "=")
			value, err := url.PathUnescape(value) // the specification's escaping is the same
			switch {
			case err != nil || value == "":
			case key == "path":
				found = append(found, value)
			case key == "abstract":
				found = append(found, "@"+value)
			}
		}
	}
	return found
}

// serials numbers the messages of one connection. godbus' own keeps a table of those that wait for an answer; ours do
// that two minutes at most, and 2³² others do not pass in that time.
type serials struct{ last atomic.Uint32 }

// GetSerial gives the next number; 0 is none (D-Bus specification, "Message Format").
func (s *serials) GetSerial() uint32 {
	for {
		if n := s.last.Add(1); n != 0 {
			return n
		}
	}
}

// RetireSerial has nothing to do.
func (*serials) RetireSerial(uint32) {}
