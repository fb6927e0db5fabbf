package uplink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"
)

// NetworkManager's D-Bus API is called over a connection of our own: the library's cannot be given a deadline. Of the library
// come the names and the numbers.
const (
	nmPath     = godbus.ObjectPath(nm.NetworkManagerObjectPath)
	nmDevice   = nm.DeviceInterface
	nmActive   = nm.ActiveConnectionInterface
	nmProfile  = nm.ConnectionInterface
	nmSettings = nm.SettingsInterface
	noObject   = godbus.ObjectPath("/")

	// activationTimeout bounds an activation. Without DHCP it takes some 100 ms, and a second more with IPv6, whose addresses
	// are probed.
	activationTimeout = 30 * time.Second
	// startupTimeout bounds how long a NetworkManager that has just started may take to look at the device.
	startupTimeout = 15 * time.Second

	// inMemory is NM_SETTINGS_UPDATE2_FLAG_IN_MEMORY: the change is kept below /run.
	inMemory = uint32(0x2)
)

// NetworkManager's errors.
const (
	unknownDevice     = nmName + ".UnknownDevice"
	invalidConnection = nmSettings + ".InvalidConnection"
	notActive         = nmDevice + ".NotActive"
	unknownObject     = busName + ".Error.UnknownObject"
	unknownMethod     = busName + ".Error.UnknownMethod"
)

var errUnmanaged = errors.New("NetworkManager does not manage the interface")

// networkManager is NetworkManager, as far as one interface is concerned.
type networkManager struct {
	*bus
	signals chan *godbus.Signal
	device  godbus.ObjectPath
	uuid    string
}

// findDevice finds the interface in NetworkManager, and waits for a NetworkManager that has just started. errUnmanaged says
// that it leaves the interface alone.
func findDevice(ctx context.Context, b *bus, owner, name string) (*networkManager, error) {
	b.nm.Store(owner)
	m := &networkManager{bus: b, signals: make(chan *godbus.Signal, 64), uuid: uuidOf(name)}
	b.conn.Signal(m.signals)
	for _, rule := range [][]godbus.MatchOption{
		{godbus.WithMatchSender(nmName), godbus.WithMatchInterface(nmActive), godbus.WithMatchMember("StateChanged")},
		{godbus.WithMatchSender(nmName), godbus.WithMatchInterface(nmDevice), godbus.WithMatchMember("StateChanged")},
		{godbus.WithMatchSender(nmName), godbus.WithMatchInterface(properties), godbus.WithMatchMember("PropertiesChanged"),
			godbus.WithMatchObjectPath(nmPath)},
		{godbus.WithMatchSender(nmName), godbus.WithMatchInterface(nmName), godbus.WithMatchMember("DeviceAdded")},
	} {
		ctx, cancel := context.WithTimeout(ctx, busTimeout)
		defer cancel()
		if err := b.conn.AddMatchSignalContext(ctx, rule...); err != nil {
			return nil, fmt.Errorf("listen to NetworkManager: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startupTimeout)
	defer cancel()
	for {
		found, err := m.look(ctx, name)
		if found || err != nil {
			return m, err
		}
		if err := m.await(ctx); err != nil {
			return nil, fmt.Errorf("%w: it has been starting for %s: %w", errUnmanaged, startupTimeout, err)
		}
	}
}

// look tells whether NetworkManager manages the interface; false without an error = it has not decided yet.
func (m *networkManager) look(ctx context.Context, name string) (bool, error) {
	starting, err := property[bool](ctx, m.bus, nmName, nmPath, nmName, "Startup")
	if isError(err, unknownObject, unknownMethod) { // it has its name before it has its objects
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = m.ask(ctx, nmName, nmPath, nmName+".GetDeviceByIpIface", []any{name}, &m.device)
	if isError(err, unknownDevice) && starting {
		return false, nil
	}
	if isError(err, unknownDevice) {
		return false, errUnmanaged
	}
	if err != nil {
		return false, err
	}
	state, err := property[uint32](ctx, m.bus, nmName, m.device, nmDevice, "State")
	switch {
	case err != nil:
		return false, err
	case nm.NmDeviceState(state) > nm.NmDeviceStateUnmanaged:
		return true, nil
	case starting:
		return false, nil
	}
	return false, errUnmanaged
}

// await waits for NetworkManager's next word.
func (m *networkManager) await(ctx context.Context) error {
	select {
	case _, open := <-m.signals:
		if !open {
			return errors.New("the connection to the bus was closed")
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connect makes NetworkManager have the connection, active on the interface, in memory alone.
func (m *networkManager) connect(ctx context.Context, s Spec) (changes []string, err error) {
	wanted := connectionOf(s, m.uuid)
	profile, err := m.profile(ctx)
	if err != nil {
		return nil, err
	}
	if profile == "" {
		active, err := m.add(ctx, wanted)
		if err != nil {
			return nil, err
		}
		return []string{"NetworkManager has a new connection, " + connectionName(s.Interface)}, m.awaitActive(ctx, active)
	}
	var is connection
	if err := m.ask(ctx, nmName, profile, nmProfile+".GetSettings", nil, &is); err != nil {
		return nil, err
	}
	if !is.like(wanted) {
		var nothing map[string]godbus.Variant
		args := []any{wanted, inMemory, map[string]godbus.Variant{}}
		if err := m.ask(ctx, nmName, profile, nmProfile+".Update2", args, &nothing); err != nil {
			return nil, err
		}
		changes = append(changes, "NetworkManager's connection was updated")
	}
	did, err := m.activate(ctx, profile, wanted)
	return append(changes, did...), err
}

// profile finds the connection; "" = there is none.
func (m *networkManager) profile(ctx context.Context) (path godbus.ObjectPath, err error) {
	err = m.ask(ctx, nmName, nm.SettingsObjectPath, nmSettings+".GetConnectionByUuid", []any{m.uuid}, &path)
	if isError(err, invalidConnection) {
		return "", nil
	}
	return path, err
}

// add makes the connection and activates it.
func (m *networkManager) add(ctx context.Context, wanted connection) (active godbus.ObjectPath, err error) {
	var profile godbus.ObjectPath
	var result map[string]godbus.Variant
	args := []any{wanted, m.device, noObject, map[string]godbus.Variant{"persist": godbus.MakeVariant("memory")}}
	err = m.ask(ctx, nmName, nmPath, nm.NetworkManagerAddAndActivateConnection2, args, &profile, &active, &result)
	return active, err
}

// activate has the interface use the connection as it is now.
func (m *networkManager) activate(ctx context.Context, profile godbus.ObjectPath, wanted connection) (changes []string, err error) {
	active, ours, err := m.active(ctx)
	if err != nil {
		return nil, err
	}
	if !ours {
		if err := m.ask(ctx, nmName, nmPath, nm.NetworkManagerActivateConnection, []any{profile, m.device, noObject}, &active); err != nil {
			return nil, err
		}
		return []string{"NetworkManager activated the connection"}, m.awaitActive(ctx, active)
	}
	if err := m.awaitActive(ctx, active); err != nil {
		return nil, err
	}
	var applied connection
	var version uint64
	if err := m.ask(ctx, nmName, m.device, nmDevice+".GetAppliedConnection", []any{uint32(0)}, &applied, &version); err != nil {
		return nil, err
	}
	if applied.like(wanted) {
		return nil, nil
	}
	if err := m.ask(ctx, nmName, m.device, nmDevice+".Reapply", []any{connection{}, version, uint32(0)}); err != nil {
		return nil, err
	}
	return []string{"NetworkManager applied the connection"}, nil
}

// active is what is active on the interface, "" for nothing, and whether that is ours.
func (m *networkManager) active(ctx context.Context) (path godbus.ObjectPath, ours bool, err error) {
	path, err = property[godbus.ObjectPath](ctx, m.bus, nmName, m.device, nmDevice, "ActiveConnection")
	if err != nil || path == noObject {
		return "", false, err
	}
	uuid, err := property[string](ctx, m.bus, nmName, path, nmActive, "Uuid")
	if isError(err, unknownObject, unknownMethod) { // it ended meanwhile
		return "", false, nil
	}
	return path, uuid == m.uuid, err
}

// awaitActive waits until an activation has succeeded.
func (m *networkManager) awaitActive(ctx context.Context, active godbus.ObjectPath) error {
	ctx, cancel := context.WithTimeout(ctx, activationTimeout)
	defer cancel()
	for {
		state, err := property[uint32](ctx, m.bus, nmName, active, nmActive, "State")
		switch {
		case isError(err, unknownObject, unknownMethod):
			return errors.New("NetworkManager could not activate the connection: its log says why")
		case err != nil:
			return err
		case nm.NmActiveConnectionState(state) == nm.NmActiveConnectionStateActivated:
			return nil
		case nm.NmActiveConnectionState(state) == nm.NmActiveConnectionStateDeactivated:
			return errors.New("NetworkManager could not activate the connection: its log says why")
		}
		if err := m.await(ctx); err != nil {
			return fmt.Errorf("NetworkManager is still activating the connection: %w", err)
		}
	}
}

// disconnect takes the connection away from the interface, if it is there.
func (m *networkManager) disconnect(ctx context.Context) (changes []string, err error) {
	_, ours, err := m.active(ctx)
	if err != nil || !ours {
		return nil, err
	}
	// Unlike the connection's end alone, this keeps NetworkManager from activating another one by itself.
	err = m.ask(ctx, nmName, m.device, nmDevice+".Disconnect", nil)
	if err != nil && !isError(err, notActive) {
		return nil, err
	}
	return []string{"NetworkManager disconnected the interface"}, nil
}

// forget deletes the connection.
func (m *networkManager) forget(ctx context.Context) (changes []string, err error) {
	profile, err := m.profile(ctx)
	if err != nil || profile == "" {
		return nil, err
	}
	err = m.ask(ctx, nmName, profile, nmProfile+".Delete", nil)
	if err != nil && !isError(err, unknownObject, unknownMethod) {
		return nil, err
	}
	return []string{"NetworkManager deleted the connection"}, nil
}

// profileDir is where NetworkManager keeps connections that are in memory alone (its keyfile plug-in), for its next start.
const profileDir = "/run/NetworkManager/system-connections"

// removeProfile removes the connection where a NetworkManager that is not running would find it.
func removeProfile(uuid string) (changes []string, err error) {
	entries, err := os.ReadDir(profileDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for NetworkManager's connection: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(profileDir, e.Name())
		text, err := readSmall(path)
		if err != nil {
			return changes, fmt.Errorf("look for NetworkManager's connection: %w", err)
		}
		if !bytes.Contains(text, []byte("\nuuid="+uuid+"\n")) {
			continue
		}
		if err := remove(path); err != nil {
			return changes, fmt.Errorf("remove NetworkManager's connection: %w", err)
		}
		changes = append(changes, "removed the connection of NetworkManager, which does not run")
	}
	return changes, nil
}
