//go:build packages

package packages

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"netvmd/internal/lab"
	"netvmd/internal/lab/container"
)

// Every wait is for an event; these bound a story, and each of its steps.
const (
	patience     = 5 * time.Minute
	stepPatience = time.Minute
)

// gateway is the netvm's address towards AppVMs. On plain Xen the admin writes it down.
const gateway = "10.137.0.6"

// packagesAt is where the container sees the packages: a folder for each version.
const packagesAt = "/opt/packages"

// debs are the packages of a netvm, of a version; in that of newest netvmd has another default in its configuration.
func debs(version string) string {
	return deb("netvmd-vm", version) + " " + deb("netvmd", version)
}

func deb(name, version string) string {
	return packagesAt + "/" + version + "/" + name + "_" + version + "_amd64.deb"
}

const (
	older  = "0.9.1"
	newer  = "0.9.2"
	newest = "0.9.3"
)

// What run.sh made: the root that is booted, and the packages.
var rootFolder, packagesFolder = os.Getenv("NETVMD_TEST_ROOT"), os.Getenv("NETVMD_TEST_PACKAGES")

func TestMain(m *testing.M) {
	if rootFolder == "" || packagesFolder == "" {
		fmt.Fprintln(os.Stderr, "these tests need a root and packages: make test-packages makes both and runs them")
		os.Exit(1)
	}
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// netvm is a Debian that is booted as the netvm of a lab, and the story that is told of it.
type netvm struct{ story }

// newNetVM makes a Debian as it comes out of its own packages, not booted yet.
func newNetVM(t *testing.T) *netvm {
	t.Helper()
	n := &netvm{story{debian: newDebian(t)}}
	t.Cleanup(func() {
		if n.Lab == nil {
			return
		}
		if t.Failed() && n.NetVM.Machine != nil {
			t.Logf("the netvm's journal:\n%s", n.NetVM.Machine.Journal(context.Background()))
		}
		n.must(n.Close())
	})
	return n
}

// boot boots it, with the cable of home plugged in and that of the office not.
func (n *netvm) boot(o lab.Options, binds ...container.Bind) {
	n.t.Helper()
	o.Booted = true
	var err error
	n.Lab, err = lab.New(n.ctx, o)
	n.must(err)
	n.must(n.Office.Unplug())
	binds = append(binds, container.Bind{From: packagesFolder, To: packagesAt, ReadOnly: true})
	n.must(n.NetVM.Boot(n.ctx, n.system, binds...))
	n.machine = n.NetVM.Machine
	n.sh("nm-online --wait-for-startup --quiet --timeout=60") // what differs later is not its first lease
}

// shutDown powers it off: what was written to its files stays, and nothing else.
func (n *netvm) shutDown() {
	n.t.Helper()
	n.must(n.NetVM.Machine.PowerOff(n.ctx))
	n.must(n.Close())
	n.Lab = nil
}

// step is a part of the story, in which it may be booted again.
func (n *netvm) step(name string, f func(n *netvm)) {
	n.t.Helper()
	n.debian.step(name, func(d debian) {
		of := netvm{story{n.Lab, d}}
		defer func() { n.Lab, n.machine = of.Lab, of.machine }()
		f(&of)
	})
}

// served wants the AppVM's queries, over UDP and TCP, to be answered by these resolvers: one for each virtual address.
func (n *netvm) served(by ...netip.Addr) {
	n.t.Helper()
	_, err := n.NetVM.AwaitTargets(n.ctx, by...)
	n.must(err)
	n.answered(by...)
}

// answered is served where netvmd need not run.
func (n *netvm) answered(by ...netip.Addr) {
	n.t.Helper()
	for i, virtual := range lab.Virtual4 {
		for _, q := range []lab.Question{{}, {TCP: true}} {
			if a, err := n.Work.Ask(n.ctx, virtual, q); err != nil || a.Who != by[i] {
				n.t.Errorf("a query to %s (%+v) is answered by %s, %v; want %s", virtual, q, a.Who, err, by[i])
			}
		}
	}
}

// pid is that of netvmd's service, in the netvm.
func (n *netvm) pid() string { return n.sh("systemctl show --property=MainPID --value netvmd.service") }

// runs wants the daemon that answers on the bus to be of a version.
func (n *netvm) runs(version string) {
	n.t.Helper()
	status, err := n.NetVM.Status(n.ctx)
	n.must(err)
	if status.Version != version {
		n.t.Errorf("netvmd %s runs, want %s", status.Version, version)
	}
}
