package main

import (
	"context"
	"errors"
	"fmt"
	"image"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"netvmd/internal/lab"
	"netvmd/internal/lab/desktop"
	"netvmd/internal/lab/fakebus"
	"netvmd/internal/netvm"
	"netvmd/tray/view"
)

// labSlot is the place of the icon, in pixels.
const labSlot = 22

// buildPrograms builds what a netvm needs beside the tray, once.
var buildPrograms = sync.OnceValue(func() error {
	build := exec.Command("go", "build", "-o", lab.Root+"/programs/", "../netvmd", "../vif-route-netvm")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build netvmd: %w\n%s", err, out)
	}
	return nil
})

// live is a real netvm with a real netvmd, and on its desktop the tray: seen through the pixels of its icon and the words
// of its menu.
type live struct {
	*lab.Lab
	t       *testing.T
	ctx     context.Context
	desk    *desktop.Desktop
	tray    *lab.Process
	signals *lab.Signals
	gaze    *desktop.Gaze
	menu    *desktop.MenuWatch
}

// openLive makes all of it, with two vifs and no uplink.
func openLive(t *testing.T, o lab.Options) *live {
	t.Helper()
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")) // the lab sets its own
	ctx, cancel := context.WithTimeout(context.Background(), lifeOfScene)
	t.Cleanup(cancel)
	l := &live{t: t, ctx: ctx}
	l.must(buildPrograms())
	o.Netvmd, o.VifRoute = lab.Root+"/programs/netvmd", lab.Root+"/programs/vif-route-netvm"
	var err error
	l.Lab, err = lab.New(ctx, o)
	l.must(err)
	t.Cleanup(func() { l.must(l.Close()) })
	l.must(l.NetVM.StartNetvmd(ctx))
	l.desk, err = desktop.New(ctx, desktop.Options{})
	l.must(err)
	t.Cleanup(func() { l.must(l.desk.Close()) })
	_, err = l.desk.StartPanel(ctx, desktop.Trayer, labSlot)
	l.must(err)
	l.tray, err = l.desk.Start(ctx, nil, trayPath, "--no-notifications")
	l.must(err)
	l.follow()
	return l
}

// follow begins to look at icon, menu and signals.
func (l *live) follow() {
	l.t.Helper()
	icon, err := l.desk.Screen.AwaitIcon(l.ctx, labSlot)
	l.must(err)
	l.gaze, err = l.desk.Screen.Gaze(l.ctx, icon.Place)
	l.must(err)
	l.t.Cleanup(l.gaze.Close)
	l.menu, err = l.desk.WatchMenu(l.ctx)
	l.must(err)
	l.t.Cleanup(func() { l.must(l.menu.Close()) })
	l.signals, err = l.NetVM.Signals(l.ctx)
	l.must(err)
	l.t.Cleanup(func() { l.must(l.signals.Close()) })
}

func (l *live) must(err error) {
	l.t.Helper()
	if err == nil {
		return
	}
	if l.tray != nil {
		err = fmt.Errorf("%w; the tray said:\n%s", err, strings.Join(l.tray.Log(), ""))
	}
	l.t.Fatal(err)
}

// nmcli is a cause.
func (l *live) nmcli(args ...string) func() error {
	return func() error { return l.NetVM.NMCLI(l.ctx, args...) }
}

// step does something and waits until the icon is the one that is wanted, and the menu has these words; a word behind "!"
// it must not have. How soon after netvmd's signal that is, the log says; `netvm-lab bench --part tray` has the figures.
func (l *live) step(name string, cause func() error, icon view.Icon, words ...string) {
	l.t.Helper()
	type seen struct {
		at  time.Time
		err error
	}
	read := make(chan seen, 1)
	l.signals.Last(time.Now()) // those of before
	began := time.Now()
	go func() {
		at, err := l.menu.Await(l.ctx, fmt.Sprintf("%q", words), func(menu desktop.Item) bool { return hasWords(menu.String(), words) })
		read <- seen{at, err}
	}()
	err := cause()
	iconAt, lookErr := l.gaze.Await(l.ctx, string(icon), func(p *image.RGBA) bool { return looksLike(p, icon, labSlot, desktop.Trayer) })
	menu := <-read
	if err = errors.Join(err, lookErr, menu.err); err != nil {
		l.must(fmt.Errorf("%s: %w", name, err))
	}
	latest := iconAt
	if menu.at.After(latest) {
		latest = menu.at
	}
	signal, followed := l.signals.Last(latest)
	if !followed {
		l.t.Logf("%s: icon %s, menu %s after the cause began", name, ms(iconAt.Sub(began)), ms(menu.at.Sub(began)))
		return
	}
	l.t.Logf("%s: icon %s, menu %s after the cause began; the last signal came %s before both were seen", name,
		ms(iconAt.Sub(began)), ms(menu.at.Sub(began)), ms(latest.Sub(signal)))
}

func ms(d time.Duration) string { return fmt.Sprintf("%d ms", max(0, d.Milliseconds())) }

func hasWords(text string, words []string) bool {
	for _, w := range words {
		without, not := strings.CutPrefix(w, "!")
		if strings.Contains(text, without) == not {
			return false
		}
	}
	return true
}

func TestTheTrayFollowsARealNetvm(t *testing.T) {
	l := openLive(t, lab.Options{Portal: true})
	home := l.Home
	l.step("the start, offline", func() error { return nil }, view.Offline, l.Work.Vif, l.Personal.Vif, "10.139.1.1 → refused")
	l.step("the uplink comes up", l.nmcli("connection", "up", "home"), view.Wired,
		`"home"`, home.NetVM.String(), "10.139.1.1 → "+home.Resolvers[0].String())
	l.step("it goes down", l.nmcli("connection", "down", "home"), view.Offline, "10.139.1.1 → refused", `!"home"`)
	l.step("and up again", l.nmcli("connection", "up", "home"), view.Wired, home.NetVM.String())
	l.step("a vif goes", func() error { return l.Personal.Detach(l.ctx) }, view.Wired, l.Work.Vif, "!"+l.Personal.Vif)
	l.step("a vif comes", func() error { return l.Personal.Attach(l.ctx) }, view.Wired, l.Work.Vif, l.Personal.Vif,
		l.Personal.Address.String())
	l.step("a captive portal is in the way", func() error {
		l.Portal.Shut()
		return l.NetVM.CheckConnectivity(l.ctx)
	}, view.Portal, "Log in to the captive portal", "aptive portal at")
	l.step("somebody logs in", func() error {
		l.Portal.Open()
		return l.NetVM.CheckConnectivity(l.ctx)
	}, view.Wired, "!aptive portal")
	l.step("a second network takes all DNS", l.nmcli("connection", "up", "vpn"), view.Wired,
		`"vpn"`, "10.139.1.2 → "+l.VPN.Resolvers[0].String())
	l.step("and gives it back", l.nmcli("connection", "down", "vpn"), view.Wired, `!"vpn"`, "10.139.1.2 → "+home.Resolvers[1].String())
	l.step("NetworkManager is killed", func() error { return l.NetVM.KillNetworkManager(l.ctx) }, view.Unmanaged, "NetworkManager is not running")
	l.step("NetworkManager is back", func() error { return l.NetVM.StartNetworkManager(l.ctx) }, view.Wired, "!NetworkManager is not running")
	l.step("netvmd is killed", func() error { return l.NetVM.KillNetvmd(l.ctx) }, view.Stopped, "netvmd is not running", "!"+l.Work.Vif)
	l.step("netvmd is back", func() error { return l.NetVM.StartNetvmd(l.ctx) }, view.Wired, "!netvmd is not running", l.Work.Vif)
	// NetworkManager itself waits some seconds whether the carrier comes back.
	l.step("the cable is pulled", home.Unplug, view.Offline, "10.139.1.1 → refused", "!"+home.NetVM.String())
	l.step("the cable is plugged in", func() error {
		return errors.Join(home.Plug(), l.NetVM.NMCLI(l.ctx, "connection", "up", "home"))
	}, view.Wired, home.NetVM.String())
	l.step("the bus is killed", func() error { return l.NetVM.KillBus(l.ctx) }, view.Stopped, "netvmd is not running")
}

func TestTheTrayFollowsWiFiAModemAndAVPN(t *testing.T) {
	l := openLive(t, lab.Options{FakeNetworkManager: true})
	wifi := l.Home.WiFi
	vpn := l.Home.Uplink("work", "wireguard")
	vpn.VPN = true
	show := func(state netvm.State, uplinks ...fakebus.Uplink) func() error {
		return func() error { return l.NetVM.FakeNM.Show(l.ctx, fakebus.Situation{State: state, Uplinks: uplinks}) }
	}
	l.step("the start, offline", func() error { return nil }, view.Offline, "10.139.1.1 → refused")
	l.step("connecting", show(netvm.Connecting), view.Connecting, "onnecting")
	l.step("Wi-Fi", show("", wifi("Café du Monde", 90)), view.WirelessGood, `"Café du Monde", 90 %`)
	l.step("its signal grows fair", show("", wifi("Café du Monde", 50)), view.WirelessFair, `"Café du Monde", 50 %`)
	l.step("and weak", show("", wifi("Café du Monde", 10)), view.WirelessWeak, `"Café du Monde", 10 %`)
	// Roaming to a neighbour who would like to write the menu.
	l.step("a hostile name", show("", wifi("\x1b[2J\n<b>\u202eevil\xff", 95)), view.WirelessGood,
		`\x1b[2J\n<b>\u202eevil`, "!\x1b", "!\u202e", "!Café")
	l.step("all 32 bytes are arbitrary", show("", wifi("\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\v\f\r\x0e\x0f\x80\x81\xfe\xff _&%<>\"'\\\x7f|", 70)),
		view.WirelessGood, `\x01\x02\x03`, "!evil", "!\x01")
	l.step("there is no Internet", show(netvm.Limited, wifi("Café du Monde", 90)), view.Limited, `"Café du Monde"`)
	l.step("a modem", show("", l.Home.Uplink("LTE", "gsm")), view.Mobile, `"LTE"`, "!Café")
	l.step("a VPN over Wi-Fi", show("", wifi("Café du Monde", 90), vpn), view.VPN, `"work"`, `"Café du Monde"`)
	l.step("a network without resolvers", func() error {
		silent := wifi("Café du Monde", 90)
		silent.DNS = nil
		return show("", silent)()
	}, view.Unserved, "10.139.1.1 → refused", `!"work"`)
	l.step("NetworkManager dies", l.NetVM.FakeNM.Close, view.Unmanaged, "NetworkManager is not running")
	l.step("and is back, offline", func() error { return l.NetVM.StartFakeNetworkManager(l.ctx) }, view.Offline, "!Café")
}
