package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	godbus "github.com/godbus/dbus/v5"
)

// bareWithBus makes a lab with a bus and nothing on it.
func bareWithBus(t *testing.T) (context.Context, *Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	t.Cleanup(cancel)
	l, err := New(ctx, Options{Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := l.NetVM.StartBus(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx, l
}

// busError is the name of a bus's answer that is an error; "" = it is none.
func busError(err error) string {
	var e godbus.Error
	if errors.As(err, &e) {
		return e.Name
	}
	return ""
}

const accessDenied = "org.freedesktop.DBus.Error.AccessDenied"

func TestAProgramOfAnotherUserHasNoRights(t *testing.T) {
	ctx, l := bareWithBus(t)
	out, err := l.NetVM.RunAs(ctx, Nobody, "sh", "-c", "id -u; id -G; ip link set lo down 2>/dev/null || echo refused")
	if err != nil || out != "65534\n65534\nrefused\n" {
		t.Errorf("it says %q, %v", out, err)
	}
}

func TestTheBusKnowsWhoSpeaks(t *testing.T) {
	ctx, l := bareWithBus(t)
	for who, dial := range map[string]func() (*godbus.Conn, error){
		"root":   l.NetVM.Bus,
		"nobody": func() (*godbus.Conn, error) { return l.NetVM.BusAs(Nobody) },
	} {
		conn, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		var uid uint32
		call := conn.BusObject().CallWithContext(ctx, busName+".GetConnectionUnixUser", 0, conn.Names()[0])
		if err := call.Store(&uid); err != nil {
			t.Errorf("%s: %v", who, err)
		}
		if want := map[string]uint32{"root": 0, "nobody": Nobody.UID}[who]; uid != want {
			t.Errorf("%s is user %d to the bus", who, uid)
		}
		_, err = conn.RequestName("org.qubes_os.NetVM1", 0)
		if mayOwn := busError(err) != accessDenied; mayOwn != (who == "root") {
			t.Errorf("%s asks for netvmd's name: %v", who, err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	// The thread that was somebody else for a moment is root again.
	if err := os.WriteFile(filepath.Join(Root, "root-again"), nil, 0o600); err != nil {
		t.Error(err)
	}
}

func TestNobodyIsCalledWithoutAPolicyThatAllowsIt(t *testing.T) {
	ctx, l := bareWithBus(t)
	serves, err := l.NetVM.Bus()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = serves.Close() }()
	asks, err := l.NetVM.BusAs(Nobody)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = asks.Close() }()
	if _, err := serves.RequestName("org.qubes_os.NetVM1", 0); err != nil {
		t.Fatal(err)
	}
	for method, allowed := range map[string]bool{
		"org.freedesktop.DBus.Peer.Ping":         true,
		"org.freedesktop.DBus.Peer.GetMachineId": true,
		"org.example.Anything":                   false,
	} {
		err := asks.Object("org.qubes_os.NetVM1", "/").CallWithContext(ctx, method, 0).Err
		if (busError(err) != accessDenied) != allowed {
			t.Errorf("%s: %v", method, err)
		}
	}
}

func TestPolkitAnswersByItsRules(t *testing.T) {
	ctx, l := bareWithBus(t)
	user, err := l.NetVM.BusAs(Nobody)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = user.Close() }()
	root, err := l.NetVM.Bus()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	type subject struct {
		Kind    string
		Details map[string]godbus.Variant
	}
	var answer struct {
		Allowed, Challenge bool
		Details            map[string]string
	}
	ask := func() bool {
		t.Helper()
		err := root.Object(polkitName, "/org/freedesktop/PolicyKit1/Authority").CallWithContext(ctx,
			polkitName+".Authority.CheckAuthorization", 0,
			subject{"system-bus-name", map[string]godbus.Variant{"name": godbus.MakeVariant(user.Names()[0])}},
			"org.qubes_os.NetVM1.override", map[string]string{}, uint32(1), "").Store(&answer)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Allowed
	}
	for _, step := range []struct {
		name, rules string
		allowed     bool
	}{
		{"without a rule", "", false},
		{"with a rule for this user", AllowUser(Nobody), true},
		{"with a rule for another user", AllowUser(User{Name: "daemon", UID: 1}), false},
	} {
		if err := l.NetVM.StartPolkit(ctx, step.rules); err != nil {
			t.Fatal(err)
		}
		if ask() != step.allowed {
			t.Errorf("%s: allowed %t", step.name, answer.Allowed)
		}
		if err := l.NetVM.StopPolkit(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
