package desktop

import (
	"context"
	"fmt"
	"image"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/lab"
)

func TestMain(m *testing.M) {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// open makes a desktop that ends with the test.
func open(t *testing.T, o Options) (context.Context, *Desktop) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	d, err := New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() }) // of which a test looks at the error itself
	return ctx, d
}

func TestTwoDesktopsStandSideBySideAndLeaveNothing(t *testing.T) {
	_, one := open(t, Options{})
	_, two := open(t, Options{User: lab.Nobody})
	if one.Screen.Display == two.Screen.Display || one.Bus.Address() == two.Bus.Address() {
		t.Errorf("both have %s, or %s", one.Screen.Display, one.Bus.Address())
	}
	for _, d := range []*Desktop{one, two} {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	left, err := filepath.Glob(lab.Root + "/desktop*")
	if err != nil || len(left) > 0 {
		t.Errorf("%v, %v was left behind", err, left)
	}
}

func TestWhatIsOnASheetCanBeRead(t *testing.T) {
	ctx, d := open(t, Options{NoBus: true})
	s := NewSheet(400)
	s.Put(image.NewRGBA(image.Rect(0, 0, 10, 60)), image.Point{})
	s.Write(`Captive portal, 100%w @home`, image.Pt(20, 20))
	path := filepath.Join(t.TempDir(), "sheet.png")
	if err := s.Save(ctx, path); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() // it was only read
	picture, _, err := image.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := d.Read(ctx, picture)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"Captive portal", "100%w"} {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not to be read in %q", w, text)
		}
	}
}

func TestNotificationsAreRecordedAndNumbered(t *testing.T) {
	ctx, d := open(t, Options{})
	n, err := d.ServeNotifications(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close() // it ends with the bus anyway
	conn, err := d.Bus.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() // nothing is awaited
	for _, tc := range []struct{ replaces, number uint32 }{{0, 1}, {1, 1}, {0, 2}} {
		var number uint32
		call := conn.Object(notificationsName, notificationsPath).CallWithContext(ctx, notificationsName+".Notify", 0,
			"app", tc.replaces, "icon", "summary", "body", []string{}, map[string]godbus.Variant{}, int32(-1))
		if err := call.Store(&number); err != nil {
			t.Fatal(err)
		}
		if got := <-n.Shown; number != tc.number || got.Replaces != tc.replaces || got.Summary != "summary" || got.Timeout != -1 {
			t.Errorf("number %d, want %d; recorded %+v", number, tc.number, got)
		}
	}
}

func TestWhatIsNotThereIsAnErrorThatSaysSo(t *testing.T) {
	ctx, d := open(t, Options{})
	if _, err := d.Menu(ctx); err == nil || !strings.Contains(err.Error(), "nobody on the session bus has a menu") {
		t.Errorf("a menu: %v", err)
	}
	if _, err := d.Screen.Resources(os.Getpid() + 1<<20); err == nil || !strings.Contains(err.Error(), "no client") {
		t.Errorf("resources: %v", err)
	}
	if _, err := d.StartPanel(ctx, "nonsense", 22); err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("a panel: %v", err)
	}
	if _, err := d.Screen.Picture(image.Rect(5000, 0, 5001, 1)); err == nil {
		t.Error("a picture of what is not on the screen")
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := d.Screen.AwaitIcon(short, 22); err == nil || !strings.Contains(err.Error(), "22 pixels is not to be seen") {
		t.Errorf("an icon: %v", err)
	}
}

func TestAMenuIsReadAsTheBusTellsIt(t *testing.T) {
	properties := func(pairs ...any) map[string]godbus.Variant {
		p := map[string]godbus.Variant{}
		for i := 0; i < len(pairs); i += 2 {
			p[pairs[i].(string)] = godbus.MakeVariant(pairs[i+1])
		}
		return p
	}
	child := func(id int32, p map[string]godbus.Variant, children ...godbus.Variant) godbus.Variant {
		return godbus.MakeVariant([]any{id, p, children})
	}
	menu, err := layout{0, nil, []godbus.Variant{
		child(1, properties("label", "a__b"), child(2, properties("label", "below", "enabled", false))),
		child(3, properties("label", "hidden", "visible", false)),
		child(4, properties("type", "separator")),
	}}.item()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := menu.String(), "a_b\n    (below)\n---\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for name, bad := range map[string]layout{
		"a label that is a number": {1, properties("label", 7), nil},
		"a child that is none":     {1, nil, []godbus.Variant{godbus.MakeVariant("child")}},
	} {
		if _, err := bad.item(); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
}
