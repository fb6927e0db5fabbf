//go:build packages

package packages

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
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

// Where the container sees the packages: a folder for each version.
const (
	packagesAt = "/opt/packages"
	older      = packagesAt + "/0.9.1/netvmd_0.9.1_amd64.deb"
	newer      = packagesAt + "/0.9.2/netvmd_0.9.2_amd64.deb"
	newest     = packagesAt + "/0.9.3/netvmd_0.9.3_amd64.deb" // with another default in its configuration
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
type netvm struct {
	*lab.Lab
	t      *testing.T
	ctx    context.Context
	system lab.System
}

// newNetVM makes a Debian as it comes out of its own packages, not booted yet.
func newNetVM(t *testing.T) *netvm {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	system, err := lab.NewSystem(strings.ReplaceAll(t.Name(), "/", "-"), rootFolder)
	if err != nil {
		t.Fatal(err)
	}
	n := &netvm{t: t, ctx: ctx, system: system}
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
	n.sh("nm-online --wait-for-startup --quiet --timeout=60") // what differs later is not its first lease
}

// shutDown powers it off: what was written to its files stays, and nothing else.
func (n *netvm) shutDown() {
	n.t.Helper()
	n.must(n.NetVM.Machine.PowerOff(n.ctx))
	n.must(n.Close())
	n.Lab = nil
}

// step is a part of the story that begins where the one before ended: without that one there is nothing to begin with.
func (n *netvm) step(name string, f func(n *netvm)) {
	n.t.Helper()
	ok := n.t.Run(name, func(t *testing.T) {
		of := *n
		of.t = t
		var cancel context.CancelFunc
		of.ctx, cancel = context.WithTimeout(n.ctx, stepPatience)
		defer cancel()
		defer func() { n.Lab = of.Lab }() // a step may boot it again
		f(&of)
	})
	if !ok {
		n.t.FailNow()
	}
}

func (n *netvm) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// sh runs a line of shell in the netvm, wants it to succeed and returns what it printed.
func (n *netvm) sh(line string) string {
	n.t.Helper()
	out, err := n.NetVM.Machine.Run(n.ctx, "sh", "-c", line)
	n.must(err)
	return strings.TrimSpace(out)
}

// says runs a line of shell in the netvm, whatever its exit code, and wants it to print this.
func (n *netvm) says(line, want string) {
	n.t.Helper()
	out, err := n.NetVM.Machine.Run(n.ctx, "sh", "-c", line)
	if got := strings.TrimSpace(out); got != want {
		n.t.Errorf("%s: %q (%v), want %q", line, got, err, want)
	}
}

// has wants a text, named for the message, to contain these words.
func (n *netvm) has(what, text string, words ...string) {
	n.t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			n.t.Errorf("%s lacks %q:\n%s", what, w, text)
		}
	}
}

// apt runs apt-get as an admin's script does, and returns what it printed.
func (n *netvm) apt(args string) string {
	n.t.Helper()
	return n.sh("DEBIAN_FRONTEND=noninteractive apt-get -qqy -o Dpkg::Use-Pty=0 " + args)
}

// kernel is all that a netvm has in the kernel, but for what changes by itself, as a link's own address does when it has
// been found to be nobody else's (RFC 4862).
func (n *netvm) kernel() string {
	n.t.Helper()
	return n.sh("nft -s list ruleset; ip -d link; ip -4 route show table all; ip -6 route show table all | sed 's/ expires.*//; /^local fe80:/d'; ip rule; " +
		"ip neigh show nud permanent; grep -rs . /proc/sys/net | grep -vE 'nf_conntrack_count|/(dentry|stable_secret|route/flush)|random' | sort")
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
