package fakebus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/lab"
	"netvmd/internal/lab/fakebus"
	"netvmd/internal/netvm"
)

const (
	patience = 20 * time.Second
	nm       = "org.freedesktop.NetworkManager"
	nmPath   = godbus.ObjectPath("/org/freedesktop/NetworkManager")
)

var bus *lab.OpenBus

func TestMain(m *testing.M) {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var err error
	if bus, err = lab.StartOpenBus(context.Background(), "bus", lab.Root+"/bus-of-test"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := bus.Stop(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// scene is a NetworkManager that is played, and somebody who follows it.
type scene struct {
	*fakebus.NetworkManager
	t       *testing.T
	ctx     context.Context
	conn    *godbus.Conn
	signals chan *godbus.Signal
}

func open(t *testing.T) *scene {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	s := &scene{t: t, ctx: ctx, signals: make(chan *godbus.Signal, 256)}
	var err error
	s.NetworkManager, err = fakebus.NewNetworkManager(bus.Address())
	s.must(err)
	t.Cleanup(func() { _ = s.Close() }) // a test may have closed it
	s.must(s.Own(ctx))
	s.conn, err = bus.Connect()
	s.must(err)
	t.Cleanup(func() { s.must(s.conn.Close()) })
	s.conn.Signal(s.signals)
	s.must(s.conn.AddMatchSignalContext(ctx, godbus.WithMatchSender(nm), godbus.WithMatchMember("PropertiesChanged")))
	return s
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) get(path godbus.ObjectPath, iface, property string) (value godbus.Variant, err error) {
	err = s.conn.Object(nm, path).CallWithContext(s.ctx, "org.freedesktop.DBus.Properties.Get", 0, iface, property).Store(&value)
	return value, err
}

// announced shows a situation and returns what was announced for it, "PATH PROPERTY" each, in order.
func (s *scene) announced(situation fakebus.Situation) (list []string) {
	s.t.Helper()
	s.must(s.Show(s.ctx, situation))
	s.must(s.Invalidate("/org/freedesktop/end", "x.y", "End"))
	for {
		select {
		case signal := <-s.signals:
			if signal.Path == "/org/freedesktop/end" {
				return list
			}
			if !strings.HasSuffix(signal.Name, ".PropertiesChanged") {
				continue // the bus's own, about our connection
			}
			for property := range signal.Body[1].(map[string]godbus.Variant) {
				list = append(list, strings.TrimPrefix(string(signal.Path), string(nmPath))+" "+property)
			}
		case <-s.ctx.Done():
			s.t.Fatal("the signals do not end")
		}
	}
}

func wifi(ssid string, strength uint8) fakebus.Situation {
	return fakebus.Situation{Uplinks: []fakebus.Uplink{{
		Uplink: netvm.Uplink{ID: "Home", Type: "802-11-wireless", Interface: "wlan0", SSID: ssid, Strength: strength},
	}}}
}

func TestWhatIsNotThereIsRefusedAsGLibRefusesIt(t *testing.T) {
	s := open(t)
	for _, tc := range []struct {
		path     godbus.ObjectPath
		property string
		want     string // "" = it is there
	}{
		{nmPath, "State", ""},
		{nmPath, "Nonsense", "InvalidArgs"},
		{nmPath + "/ActiveConnection/1", "State", "UnknownMethod"},
	} {
		_, err := s.get(tc.path, nm, tc.property)
		var refused godbus.Error
		if is := errors.As(err, &refused); is != (tc.want != "") || is && !strings.HasSuffix(refused.Name, "."+tc.want) {
			t.Errorf("%s of %s: %v, want %q", tc.property, tc.path, err, tc.want)
		}
	}
	if err := s.Own(s.ctx); err == nil {
		t.Error("a name is owned twice")
	}
}

func TestOnlyWhatIsDifferentIsAnnouncedDetailsFirst(t *testing.T) {
	s := open(t)
	first := s.announced(wifi("a", 10))
	device, self := slices.Index(first, "/Devices/1 Interface"), slices.Index(first, " ActiveConnections")
	if device < 0 || self < device {
		t.Errorf("the first uplink: %q", first)
	}
	for _, step := range []struct {
		name string
		says fakebus.Situation
		want []string
	}{
		{"the same", wifi("a", 10), nil},
		{"the strength", wifi("a", 20), []string{"/AccessPoint/1 Strength"}},
		{"another network", wifi("b", 20), []string{"/AccessPoint/2 Ssid", "/AccessPoint/2 Strength", "/ActiveConnection/1 SpecificObject"}},
		{"the first one again", wifi("a", 20), []string{"/AccessPoint/1 Ssid", "/AccessPoint/1 Strength", "/ActiveConnection/1 SpecificObject"}},
	} {
		got := s.announced(step.says)
		slices.Sort(got)
		if !slices.Equal(got, step.want) {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
	s.announced(fakebus.Situation{})
	if _, err := s.get(nmPath+"/AccessPoint/1", nm+".AccessPoint", "Ssid"); err == nil {
		t.Error("an access point is left behind")
	}
}

func TestBytesOfANameComeAsTheyAre(t *testing.T) {
	s := open(t)
	const name = "\x00\xff\x1b<b>\n"
	s.announced(wifi(name, 1))
	value, err := s.get(nmPath+"/AccessPoint/1", nm+".AccessPoint", "Ssid")
	if bytes, is := value.Value().([]byte); err != nil || !is || string(bytes) != name {
		t.Errorf("%v, %v", value, err)
	}
}

func TestOneThatIsHushedAnswersLater(t *testing.T) {
	s := open(t)
	speak := s.Hush()
	call := s.conn.Object(nm, nmPath).GoWithContext(s.ctx, "org.freedesktop.DBus.Properties.Get", 0, make(chan *godbus.Call, 1), nm, "State")
	// Somebody else's question, asked later, is answered: so the first one would have been.
	s.must(s.conn.BusObject().CallWithContext(s.ctx, "org.freedesktop.DBus.GetId", 0).Err)
	select {
	case <-call.Done:
		t.Error("it answers while it is hushed")
	default:
	}
	speak()
	s.must((<-call.Done).Err)
}
