package doctor

import (
	"os"
	"strings"
	"testing"

	"netvmd/internal/lab/container"
	"netvmd/internal/qubes"
)

// TestARealSystemdIsUnderstood asks one that has drop-ins as packages install them, in a domain whose service netvmd is on.
func TestARealSystemdIsUnderstood(t *testing.T) {
	ctx, b := deadline(t), bare(t)
	t.Cleanup(b.close)
	const here = "/etc/systemd/system/"
	for _, name := range []string{vifsUnit, dispatcherUnit + ".d/" + dropIn, networkUnit + ".d/" + dropIn} {
		text, err := os.ReadFile("../../packaging/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		b.write(here+name, string(text))
	}
	for _, name := range []string{"netvmd.service", dispatcherUnit, networkUnit} {
		b.write(here+name, "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n")
	}
	for _, name := range []string{"netvmd.service", vifsUnit} {
		b.link("../"+name, here+"multi-user.target.wants/"+name)
	}
	b.link("/dev/null", here+"netvmd-firewall.service")
	m, err := container.Boot(ctx, container.Options{Binds: []container.Bind{{From: b.path(here), To: strings.TrimSuffix(here, "/")}}})
	if err != nil {
		t.Fatalf("this test needs root and systemd-nspawn (package systemd-container): %v", err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", m.Bus())

	b.inQubes(qubes.Netvmd)
	u, err := readUnits(ctx, b.machine)
	for i := range u.all {
		u.all[i].path = ""
	}
	mustBe(t, "units", u.all, err, []unit{
		{name: "netvmd.service", load: "loaded", file: "enabled", active: "active"},
		{name: "netvmd-firewall.service", load: "masked", file: "masked", active: "inactive"},
		{name: vifsUnit, load: "loaded", file: "enabled", active: "inactive", unmet: true},
	})
	if gone, err := b.unit(ctx, "absent.service"); err != nil || gone.load != "not-found" {
		t.Errorf("a unit that is not there: %+v, %v", gone, err)
	}
	for _, script := range []string{qubesHook, qubesDNAT} {
		b.write(script, "#!/bin/sh\n")
		b.chmod(script, 0o755)
	}
	q, err := readQubesHooks(ctx, b.machine)
	if err != nil || len(q.beside) != 2 || len(q.unmade) != 2 || q.judge().remedy != "Run: systemctl restart netvmd-firewall" {
		t.Errorf("before the firewall is loaded: %+v, %v", q, err)
	}
	b.link("/bin/true", q.unmade[0])
	q, err = readQubesHooks(ctx, b.machine)
	mustBe(t, "taken over", q, err, qubesHooks{service: service{qubes: true, on: true}, there: true})
}
