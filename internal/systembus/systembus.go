// Package systembus opens connections to the system bus with the deadline that godbus lacks: nmhook and dbus each
// need one of their own.
package systembus

import (
	"context"
	"fmt"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// connectTimeout bounds connecting, authentication and Hello together. The bus answers in a millisecond.
const connectTimeout = 5 * time.Second

// Connect opens a connection of the caller's own, whose signals come in order and are its alone. It ends with ctx.
func Connect(ctx context.Context) (*godbus.Conn, error) {
	life, cancel := context.WithCancel(ctx) // godbus knows no deadline: ending the context closes the socket
	expire := time.AfterFunc(connectTimeout, cancel)
	conn, err := godbus.ConnectSystemBus(godbus.WithContext(life),
		godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connect to the system bus: %w", err)
	}
	if !expire.Stop() {
		cancel()
		return nil, fmt.Errorf("connect to the system bus: no answer within %s", connectTimeout)
	}
	context.AfterFunc(conn.Context(), cancel)
	return conn, nil
}
