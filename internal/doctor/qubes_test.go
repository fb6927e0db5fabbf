package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"netvmd/internal/qubes"
)

func TestOurScriptIsFound(t *testing.T) {
	b, ctx := bare(t), deadline(t)
	h, err := readHotplug(ctx, b.machine)
	mustBe(t, "an empty machine", h, err, hotplug{})
	b.write("/sys/hypervisor/type", "xen\n")
	b.installScript()
	h, err = readHotplug(ctx, b.machine)
	mustBe(t, "a script that cannot be run", h, err, hotplug{xen: true, there: true})
	b.chmod("/usr/lib/netvmd/vif-route-netvm", 0o755)
	h, err = readHotplug(ctx, b.machine)
	mustBe(t, "a script that can", h, err, hotplug{true, true, true})
}

// installScript puts our hotplug script where packages put it.
func (b *bench) installScript() {
	b.t.Helper()
	b.write("/usr/lib/netvmd/vif-route-netvm", "")
	b.link(b.path("/usr/lib/netvmd/vif-route-netvm"), scriptsDir+ownScript)
}

// link makes a symbolic link to a target as it is said.
func (b *bench) link(target, path string) {
	b.t.Helper()
	path = b.path(path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.RemoveAll(path), os.Symlink(target, path)); err != nil {
		b.t.Fatal(err)
	}
}

// inQubes makes the machine a domain of Qubes' that dom0 calls sys-net.
func (b *bench) inQubes(services ...string) {
	b.t.Helper()
	b.write("/usr/share/qubes/marker-vm", "")
	b.write("/proc/sys/kernel/hostname", "sys-net\n")
	for _, s := range services {
		b.write(qubes.Flag(s), "")
	}
}

const netvmdOn = "In dom0: qvm-service sys-net netvmd on, and start sys-net again"

func TestTheServiceOfQubesIsFound(t *testing.T) {
	b, ctx := bare(t), deadline(t)
	s, err := readService(ctx, b.machine)
	mustBe(t, "a plain machine", s, err, service{})
	b.inQubes()
	s, err = readService(ctx, b.machine)
	mustBe(t, "a domain of Qubes", s, err, service{qubes: true, turnOn: netvmdOn})
	b.inQubes(qubes.Netvmd)
	s, err = readService(ctx, b.machine)
	mustBe(t, "with the service", s, err, service{qubes: true, on: true})
}

func TestQubesHotplugScriptIsFound(t *testing.T) {
	b, ctx := bare(t), deadline(t)
	q, err := readQubesHotplug(ctx, b.machine)
	mustBe(t, "an empty machine", q, err, qubesHotplug{})
	b.write("/sys/hypervisor/type", "xen\n")
	b.write(scriptsDir+qubesScript, "")
	q, err = readQubesHotplug(ctx, b.machine)
	mustBe(t, "a script, and none of ours", q, err, qubesHotplug{xen: true, there: true})
	b.installScript()
	on := service{qubes: true, on: true}
	b.inQubes(qubes.Netvmd)
	q, err = readQubesHotplug(ctx, b.machine)
	mustBe(t, "Qubes' own", q, err, qubesHotplug{xen: true, there: true, service: on})

	run(t, "mount --bind "+b.path("/usr/lib/netvmd/vif-route-netvm")+" "+b.path(scriptsDir+qubesScript))
	q, err = readQubesHotplug(ctx, b.machine)
	run(t, "umount "+b.path(scriptsDir+qubesScript))
	mustBe(t, "ours over Qubes' own", q, err, qubesHotplug{xen: true, there: true, ours: true, service: on})
	b.link(ownScript, scriptsDir+qubesScript)
	q, err = readQubesHotplug(ctx, b.machine)
	mustBe(t, "a link to ours", q, err, qubesHotplug{xen: true, there: true, ours: true, service: on})
	b.link("nowhere", scriptsDir+qubesScript)
	q, err = readQubesHotplug(ctx, b.machine)
	mustBe(t, "a link to nothing", q, err, qubesHotplug{xen: true, service: on})
}
