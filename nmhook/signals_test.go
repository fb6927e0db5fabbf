package nmhook

import (
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

func announced(sender string, path godbus.ObjectPath, iface string, properties ...string) *godbus.Signal {
	changed := map[string]godbus.Variant{}
	for _, p := range properties {
		changed[p] = godbus.MakeVariant("anything")
	}
	return &godbus.Signal{Sender: sender, Path: path, Name: propertiesChanged, Body: []any{iface, changed, []string{}}}
}

func TestASignalMakesOnlyItsOwnSourceDirty(t *testing.T) {
	const nmOwner, resolvedOwner, loginOwner = ":1.5", ":1.6", ":1.7"
	const point = nmPath + "/AccessPoint/1"
	sleep := func(body ...any) *godbus.Signal {
		return &godbus.Signal{Sender: loginOwner, Path: loginPath, Name: loginIface + ".PrepareForSleep", Body: body}
	}
	everything := []source{sourceNMDNS, sourceUplinks, sourceResolved, sourceResolvConf, sourceChained}
	tests := map[string]struct {
		signal *godbus.Signal
		dirty  []source
	}{
		"NetworkManager's DNS configuration":           {announced(nmOwner, nmDNSPath, nmDNSInterface, "Configuration"), []source{sourceNMDNS}},
		"the mode of its DNS manager is nothing to us": {announced(nmOwner, nmDNSPath, nmDNSInterface, "Mode"), nil},
		"its connectivity":                             {announced(nmOwner, nmPath, nmName, "Connectivity"), []source{sourceUplinks}},
		"the end of its start":                         {announced(nmOwner, nmPath, nmName, "Startup"), []source{sourceNMDNS, sourceUplinks}},
		"a vif among its devices is nothing to us":     {announced(nmOwner, nmPath, nmName, "Devices", "AllDevices"), nil},
		"an active connection's state":                 {announced(nmOwner, acPath, nmName+".Connection.Active", "State"), []source{sourceUplinks}},
		"an address":                                   {announced(nmOwner, ip4Path, nmName+".IP4Config", "AddressData"), []source{sourceUplinks}},
		"a device's byte counter is nothing to us":     {announced(nmOwner, devicePath, nmName+".Device.Statistics", "RxBytes"), nil},
		"a scan is nothing to us":                      {announced(nmOwner, devicePath, nmName+".Device.Wireless", "LastScan", "AccessPoints"), nil},
		"the access point in use grows weaker":         {announced(nmOwner, point, accessPoint, "Strength"), []source{sourceUplinks}},
		"the access point in use was seen":             {announced(nmOwner, point, accessPoint, "LastSeen"), nil},
		"another access point grows weaker":            {announced(nmOwner, point+"0", accessPoint, "Strength"), nil},
		"resolved's servers":                           {announced(resolvedOwner, resolvedPath, resolvedIface, "DNS"), []source{sourceResolved}},
		"resolved's statistics are nothing to us":      {announced(resolvedOwner, resolvedPath, resolvedIface, "CacheStatistics"), nil},
		"resolved's servers on another path":           {announced(resolvedOwner, "/elsewhere", resolvedIface, "DNS"), nil},
		"resolved's property told by NetworkManager":   {announced(nmOwner, resolvedPath, resolvedIface, "DNS"), nil},
		"NetworkManager's property told by a stranger": {announced(":1.66", nmDNSPath, nmDNSInterface, "Configuration"), nil},
		"a signal without a sender":                    {announced("", nmDNSPath, nmDNSInterface, "Configuration"), nil},
		"waking up":                                    {sleep(false), everything},
		"falling asleep is nothing to us":              {sleep(true), nil},
		"a sleep signal of another type":               {sleep("false"), nil},
		"a sleep signal without a word":                {sleep(), nil},
		"a change without a body":                      {&godbus.Signal{Sender: nmOwner, Path: nmPath, Name: propertiesChanged}, nil},
		"a change of other types":                      {&godbus.Signal{Sender: nmOwner, Path: nmPath, Name: propertiesChanged, Body: []any{[]byte{1}, 2, 3}}, nil},
		"an owner change told by a stranger": {&godbus.Signal{Sender: ":1.66", Path: "/org/freedesktop/DBus", Name: ownerChanged,
			Body: []any{nmName, nmOwner, ":1.66"}}, nil},
		"an owner change told by the bus": {&godbus.Signal{Sender: busName, Path: "/org/freedesktop/DBus", Name: ownerChanged,
			Body: []any{resolvedName, resolvedOwner, ""}}, []source{sourceResolved}},
		"an owner change of other types": {&godbus.Signal{Sender: busName, Path: "/org/freedesktop/DBus", Name: ownerChanged,
			Body: []any{1, 2, 3}}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			log := slog.New(slog.NewTextHandler(io.Discard, nil))
			b := newBoard(log, DefaultResolvConf)
			s := &session{board: b, log: log, nm: &nmMemory{}, points: map[godbus.ObjectPath]bool{point: true},
				owners: map[string]string{nmName: nmOwner, resolvedName: resolvedOwner, loginName: loginOwner}}
			now := time.Now()
			s.dispatch(test.signal, now)
			var dirty []source
			for i, kick := range b.kick {
				if len(kick) > 0 {
					dirty = append(dirty, source(i))
					if p, _ := b.collect(source(i)); !p.arrived.Equal(now) || p.signals != 1 {
						t.Errorf("%s: arrived %v, %d signals", source(i), p.arrived, p.signals)
					}
				}
			}
			if !slices.Equal(dirty, test.dirty) {
				t.Errorf("dirty are %v, want %v", dirty, test.dirty)
			}
		})
	}
}
