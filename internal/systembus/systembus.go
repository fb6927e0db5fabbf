// Package systembus opens connections to the system bus with the deadline that godbus lacks: nmhook and dbus each
// need one of their own.
package systembus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// connectTimeout bounds connecting, authentication and Hello together. The bus answers in a millisecond.
const connectTimeout = 5 * time.Second

// defaultSocket is the system bus's, D-Bus specification, "Well-known Message Bus Instances".
const defaultSocket = "/run/dbus/system_bus_socket"

// Connect opens a connection of the caller's own, whose signals come in order and are its alone. It ends with ctx.
func Connect(ctx context.Context) (*godbus.Conn, error) {
	life, cancel := context.WithCancel(ctx) // godbus knows no deadline: ending the context closes the socket
	expire := time.AfterFunc(connectTimeout, cancel)
	conn, err := godbus.ConnectSystemBus(godbus.WithContext(life),
		godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connect to the system bus: %w", cmp.Or(missing(), err))
	}
	if !expire.Stop() {
		cancel()
		return nil, fmt.Errorf("connect to the system bus: no answer within %s", connectTimeout)
	}
	context.AfterFunc(conn.Context(), cancel)
	return conn, nil
}

// missing is fs.ErrNotExist, with the socket's path, where there is no bus at all: godbus has words of its own for that,
// which nobody can tell from another failure.
func missing() error {
	if os.Getenv("DBUS_SYSTEM_BUS_ADDRESS") != "" {
		return nil // the error of the attempt says it
	}
	if _, err := os.Stat(defaultSocket); errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
