package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	godbus "github.com/godbus/dbus/v5"
)

// OpenBus is a real D-Bus daemon on which every user may do everything, for programs whose rights are not what is looked
// at. It activates no services.
type OpenBus struct {
	name, socket string
	daemon       *Process
}

const openConfig = `<busconfig><listen>%s</listen><auth>EXTERNAL</auth><policy context="default"><allow user="*"/><allow own="*"/>
<allow send_destination="*"/><allow receive_type="method_call"/><allow receive_type="method_return"/>
<allow receive_type="error"/><allow receive_type="signal"/></policy></busconfig>`

// StartOpenBus starts a bus that listens at a socket, a path that is free; name is that of its log.
func StartOpenBus(ctx context.Context, name, socket string) (*OpenBus, error) {
	b := &OpenBus{name: name, socket: socket}
	return b, b.Start(ctx)
}

// Start starts the bus again after it was stopped, at the same socket.
func (b *OpenBus) Start(ctx context.Context) error {
	config := b.socket + ".conf"
	if err := os.WriteFile(config, []byte(fmt.Sprintf(openConfig, b.Address())), 0o644); err != nil {
		return fmt.Errorf("%s: %w", b.name, err)
	}
	cmd := daemonCommand(ctx, "dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile", "--print-address")
	var err error
	b.daemon, err = StartDaemon(ctx, b.name, "unix:", cmd)
	return err
}

// Stop kills the bus; every program on it is cut off.
func (b *OpenBus) Stop(ctx context.Context) error {
	err := b.daemon.Stop(ctx, syscall.SIGKILL)
	if gone := os.Remove(b.socket); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, fmt.Errorf("%s: %w", b.name, gone))
	}
	return err
}

// Address is where the bus listens, as DBUS_SYSTEM_BUS_ADDRESS and DBUS_SESSION_BUS_ADDRESS have it.
func (b *OpenBus) Address() string { return "unix:path=" + b.socket }

// Connect opens a connection of the caller's own, on which signals come in order. Close it.
func (b *OpenBus) Connect() (*godbus.Conn, error) {
	conn, err := godbus.Connect(b.Address(), godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()))
	if err != nil {
		return nil, fmt.Errorf("%s: connect: %w", b.name, err)
	}
	return conn, nil
}
