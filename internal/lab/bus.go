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

// systemBus is the configuration of a system bus as distributions have it: nobody may own a name or call anybody until a file allows it, and
// the limits are those that dbus-daemon has built in. The files are our own, as it is installed, and the machine's for
// the real daemons of the lab, wherever its distribution keeps them. NetworkManager's brings limits of its own, on every
// netvm too. systemd-resolved's names a user that the lab makes later than the bus, so it has its rights here.
const systemBus = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
    <allow own="` + resolvedName + `"/>
    <allow send_destination="` + resolvedName + `"/>
  </policy>
  <policy user="root">
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Monitoring"/>
  </policy>
  <include ignore_missing="yes">/usr/share/dbus-1/system.d/org.freedesktop.NetworkManager.conf</include>
  <include ignore_missing="yes">/etc/dbus-1/system.d/org.freedesktop.NetworkManager.conf</include>
  <include ignore_missing="yes">/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf</include>
  <include ignore_missing="yes">/etc/dbus-1/system.d/org.freedesktop.PolicyKit1.conf</include>
  <include>%s</include>
</busconfig>
`

// StartBus starts the domain's D-Bus daemon.
func (d *Domain) StartBus(ctx context.Context) error {
	if err := os.Remove(d.busSocket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	cmd := daemonCommand(ctx, "dbus-daemon", "--config-file="+d.busConfig(), "--nofork", "--nopidfile", "--print-address")
	cmd.Env = d.Environ()
	var err error
	d.busDaemon, err = d.startDaemon(ctx, "dbus-daemon", "unix:", cmd)
	return err
}

// KillBus kills the D-Bus daemon; every program on it is cut off.
func (d *Domain) KillBus(ctx context.Context) error {
	return d.busDaemon.Stop(ctx, syscall.SIGKILL)
}

// BusAddress is where the domain's system bus listens, as DBUS_SYSTEM_BUS_ADDRESS has it.
func (d *Domain) BusAddress() string { return d.bus }

// Bus opens a connection of its own to the domain's bus, for whoever wants to speak to the daemons there;
// signals come in order. Close it.
func (d *Domain) Bus() (*godbus.Conn, error) {
	conn, err := connectBus(d.bus)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Name, err)
	}
	return conn, nil
}

func connectBus(address string) (*godbus.Conn, error) {
	conn, err := godbus.Connect(address, godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()))
	if err != nil {
		return nil, fmt.Errorf("connect to the bus at %s: %w", address, err)
	}
	return conn, nil
}

// awaitName returns a channel that is closed when somebody takes the name; the watch begins before the return.
func (d *Domain) awaitName(ctx context.Context, name string) (<-chan struct{}, error) {
	conn, err := d.Bus()
	if err != nil {
		return nil, err
	}
	signals := make(chan *godbus.Signal, 64)
	conn.Signal(signals)
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	if err := conn.AddMatchSignalContext(ctx, godbus.WithMatchSender(busName), godbus.WithMatchInterface(busName),
		godbus.WithMatchMember(ownerChanged), godbus.WithMatchArg(0, name)); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: watch the bus name %s: %w", d.Name, name, err), conn.Close())
	}
	owned := make(chan struct{})
	go func() {
		defer func() { _ = conn.Close() }() // nothing that was sent is awaited
		for s := range signals {
			if len(s.Body) == 3 && s.Body[0] == name && s.Body[2] != "" {
				close(owned)
				return
			}
		}
	}()
	return owned, nil
}
