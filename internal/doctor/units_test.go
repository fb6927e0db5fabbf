package doctor

import (
	"errors"
	"strings"
	"sync"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/qubes"
)

// playedSystemd says of the units that it knows what their properties are, and of all others that they are not found.
type playedSystemd struct {
	mu    sync.Mutex
	conn  *godbus.Conn
	units map[string]map[string]any // by name; what is missing is that of a unit that runs
}

// bind is an entry of BindReadOnlyPaths.
type bind struct {
	Source, Destination string
	IgnoreMissing       bool
	Flags               uint64
}

func playSystemd(t *testing.T) *playedSystemd {
	t.Helper()
	const manager = godbus.ObjectPath("/org/freedesktop/systemd1")
	s := &playedSystemd{units: map[string]map[string]any{}}
	load := func(unit string) (godbus.ObjectPath, *godbus.Error) {
		path := manager + "/unit/" + godbus.ObjectPath(strings.NewReplacer(".", "_2e", "-", "_2d").Replace(unit))
		get := func(_, property string) (godbus.Variant, *godbus.Error) { return s.property(unit, property), nil }
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := s.conn.ExportMethodTable(methods{"Get": get}, path, "org.freedesktop.DBus.Properties"); err != nil {
			return "", godbus.MakeFailedError(err)
		}
		return path, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = serve(t, systemd, manager, map[string]methods{systemd + ".Manager": {"LoadUnit": load}})
	return s
}

func (s *playedSystemd) property(unit, name string) godbus.Variant {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, is := s.units[unit]
	if value, has := known[name]; has {
		return godbus.MakeVariant(value)
	}
	if !is && name == "LoadState" {
		return godbus.MakeVariant("not-found")
	}
	return godbus.MakeVariant(map[string]any{"LoadState": "loaded", "UnitFileState": "enabled", "ActiveState": "active",
		"ConditionResult": true, "ConditionTimestamp": uint64(1), "BindReadOnlyPaths": []bind{}}[name])
}

// has makes a unit known, with these properties beside those that every unit has.
func (s *playedSystemd) has(unit string, properties map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.units[unit] = properties
}

func TestUnitsAreAskedOfSystemd(t *testing.T) {
	startBus(t)
	ctx, b := deadline(t), bare(t)
	t.Cleanup(b.close)
	if u, err := readUnits(ctx, b.machine); !errors.Is(err, errNoSystemd) {
		t.Errorf("nobody is there: %+v, %v", u, err)
	}
	played := playSystemd(t)
	played.has("netvmd.service", map[string]any{"UnitFileState": "disabled", "ActiveState": "inactive", "ConditionTimestamp": uint64(0), "ConditionResult": false})
	played.has(vifsUnit, map[string]any{"ActiveState": "inactive", "ConditionResult": false})
	say := func(when string, want ...unit) {
		t.Helper()
		u, err := readUnits(ctx, b.machine)
		for i := range u.all {
			u.all[i].path = ""
		}
		mustBe(t, when, u.all, err, want)
	}
	netvmd := unit{name: "netvmd.service", load: "loaded", file: "disabled", active: "inactive"}
	gone := unit{name: "netvmd-firewall.service", load: "not-found", file: "enabled", active: "active"}
	say("a plain machine", netvmd, gone)
	b.inQubes(qubes.Netvmd)
	b.write(scriptsDir+qubesScript, "")
	say("a domain of Qubes", netvmd, gone, unit{name: vifsUnit, load: "loaded", file: "enabled", active: "inactive", unmet: true})
	if u, err := readUnits(ctx, b.machine); err != nil || !u.vifs || !u.service.on {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestATakeoverIsSeenFromOutside(t *testing.T) {
	startBus(t)
	ctx, b := deadline(t), bare(t)
	t.Cleanup(b.close)
	b.inQubes(qubes.Netvmd)
	on := service{qubes: true, on: true}
	q, err := readQubesHooks(ctx, b.machine)
	mustBe(t, "without Qubes' scripts", q, err, qubesHooks{service: on})
	b.write(qubesHook, "")
	b.write(qubesDNAT, "")
	b.chmod(qubesHook, 0o755)
	b.chmod(qubesDNAT, 0o755)
	if q, err := readQubesHooks(ctx, b.machine); !errors.Is(err, errNoSystemd) {
		t.Errorf("nobody can say what the units do: %+v, %v", q, err)
	}

	over := func(script string) bind { return bind{qubes.Flag(qubes.Netvmd), script, true, 0} }
	played := playSystemd(t)
	played.has(dispatcherUnit, nil)
	b.write("/usr/lib/systemd/system/"+networkUnit+".d/"+dropIn, "")
	const absent = "/usr/lib/systemd/system/" + dispatcherUnit + ".d/" + dropIn
	q, err = readQubesHooks(ctx, b.machine)
	mustBe(t, "no drop-in", q, err, qubesHooks{service: on, there: true, absent: []string{absent},
		beside: []string{qubesHook + " in " + dispatcherUnit, qubesDNAT + " in " + dispatcherUnit}})

	b.write(absent, "")
	played.has(dispatcherUnit, map[string]any{"BindReadOnlyPaths": []bind{over("/other"), over(qubesHook), over(qubesDNAT)}})
	q, err = readQubesHooks(ctx, b.machine)
	mustBe(t, "taken over", q, err, qubesHooks{service: on, there: true})

	played.has(networkUnit, nil)
	b.link("/dev/null", "/etc/systemd/system/"+networkUnit+".d/"+dropIn)
	q, err = readQubesHooks(ctx, b.machine)
	mustBe(t, "a masked drop-in", q, err, qubesHooks{service: on, there: true, beside: []string{qubesDNAT + " in " + networkUnit},
		masked: []string{"/etc/systemd/system/" + networkUnit + ".d/" + dropIn}})
	played.has(networkUnit, map[string]any{"BindReadOnlyPaths": []bind{over(qubesDNAT)}})
	q, err = readQubesHooks(ctx, b.machine)
	mustBe(t, "a masked drop-in of which systemd was not told", q, err, qubesHooks{service: on, there: true})

	played.has(networkUnit, map[string]any{"BindReadOnlyPaths": []bind{{"/run/netvmd/nothing-to-do", qubesDNAT, true, 0}}})
	q, err = readQubesHooks(ctx, b.machine)
	mustBe(t, "nothing to lay over it", q, err, qubesHooks{service: on, there: true, beside: []string{qubesDNAT + " in " + networkUnit},
		unmade: []string{"/run/netvmd/nothing-to-do"}})
	b.link("/bin/true", "/run/netvmd/nothing-to-do")
	q, err = readQubesHooks(ctx, b.machine)
	mustBe(t, "taken over once more", q, err, qubesHooks{service: on, there: true})

	run(t, "rm "+b.path(qubes.Flag(qubes.Netvmd)))
	q, err = readQubesHooks(ctx, b.machine)
	if err != nil || len(q.beside) != 2 || q.judge().state != OK {
		t.Errorf("without the service: %+v, %v", q, err)
	}
}
