package dom0

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
)

// Up puts dom0 on the network. When something goes wrong, or ctx ends, all is taken back.
func Up(ctx context.Context, o Options) error {
	t, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer t.close()
	if err := t.refuseAgain(); err != nil {
		return err
	}
	w, err := t.wish(ctx)
	if err != nil {
		return err
	}
	if o.DryRun {
		return t.rehearse(ctx, w)
	}
	boot, err := bootID(o.Root)
	if err != nil {
		return err
	}
	j, err := newJournal(JournalPath(o.Config.StateDir), begin{boot, o.Version})
	if err != nil {
		return err
	}
	defer func() { _ = j.close() }() // each line is on the disk
	failure := t.climb(ctx, j, w)
	if failure == nil {
		return nil
	}
	// What is begun is taken back to its end, also when it is a signal that ended ctx.
	if err := t.undoAll(context.WithoutCancel(ctx), j); err != nil {
		return fmt.Errorf("%w; and it could not all be taken back: %w; `qvm-dom0-network-via-netvm down` tries again", failure, err)
	}
	return fmt.Errorf("%w; all was taken back", failure)
}

// refuseAgain finds what an earlier run left.
func (t *tool) refuseAgain() error {
	path := JournalPath(t.Config.StateDir)
	switch _, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("it is up already, or was not ended: %s is there; run `qvm-dom0-network-via-netvm down` first", path)
}

// wish is what up is to do, in so far as it is known before.
type wish struct {
	netvm   Domain
	others  []Domain // that run
	card    attach
	gateway netip.Addr
	servers []netip.Addr
	// resolvConf is written, and kept in saved meanwhile.
	resolvConf, saved string
}

// wish finds out what is to be done, and refuses what cannot be.
func (t *tool) wish(ctx context.Context) (w wish, err error) {
	domains, err := t.xl.list(ctx)
	if err != nil {
		return wish{}, err
	}
	if w.netvm, err = choose(domains, t.Netvm); err != nil {
		return wish{}, err
	}
	w.others = t.toPause(domains, w.netvm)
	w.card = attach{Backend: w.netvm, MAC: mac, Address: t.Address}
	w.resolvConf, w.saved = t.Config.DNS.ResolvConf, filepath.Join(t.Config.StateDir, "dom0-resolv.conf")
	if w.gateway, w.servers, err = t.network(ctx, w.netvm); err != nil {
		return wish{}, err
	}
	for _, look := range []func(context.Context, wish) error{t.refuseChained, t.refuseCard, t.refuseRoute} {
		if err := look(ctx, w); err != nil {
			return wish{}, err
		}
	}
	return w, nil
}

// usualNetvms are the names that a netvm has where nobody says another: in Qubes, and in this project's pages.
var usualNetvms = []string{"sys-net", "netvm"}

// choose finds the netvm, which must run.
func choose(domains []Domain, name string) (Domain, error) {
	candidates := usualNetvms
	if name != "" {
		candidates = []string{name}
	}
	others := slices.DeleteFunc(slices.Clone(domains), func(d Domain) bool { return d.ID == 0 || !d.running() })
	for _, candidate := range candidates {
		d, is := find(domains, func(d Domain) bool { return d.Name == candidate })
		switch {
		case is && d.ID == 0:
			return Domain{}, fmt.Errorf("%s is dom0 itself: --netvm names the domain that has the network cards", d.Name)
		case is && d.running():
			return d, nil
		case is && d.paused:
			return Domain{}, fmt.Errorf("%s is paused: `%s` first", d, command(unpauseArgs(d.ID)...))
		}
	}
	if len(others) == 0 {
		return Domain{}, fmt.Errorf("%s does not run, nor does any other domain: start the netvm first", candidates[0])
	}
	if name == "" {
		return Domain{}, fmt.Errorf("neither %s nor %s runs: say --netvm NAME; these run: %s", usualNetvms[0], usualNetvms[1], names(others))
	}
	return Domain{}, fmt.Errorf("%s does not run: start it first, or say another --netvm; these run: %s", name, names(others))
}

// toPause are the domains that run and shall not: all but dom0, the netvm, and the stub domain with its device model,
// without which it would stop too (libxl names it so: libxl__stub_dm_name).
func (t *tool) toPause(domains []Domain, netvm Domain) []Domain {
	return slices.DeleteFunc(slices.Clone(domains), func(d Domain) bool {
		return d.ID == 0 || d.ID == netvm.ID || d.Name == netvm.Name+"-dm" || !d.running()
	})
}

// network finds dom0's gateway and nameservers.
func (t *tool) network(ctx context.Context, netvm Domain) (gateway netip.Addr, servers []netip.Addr, err error) {
	s, err := t.store.settings(ctx, netvm, t.Root+filepath.Join("/var/run/qubes", "qubesdb."+filepath.Base(netvm.Name)+".sock"))
	if err != nil {
		return netip.Addr{}, nil, err
	}
	gateway = s.gateway
	for _, a := range []netip.Addr{t.Config.Vif.Gateway, t.Gateway} {
		if a.IsValid() {
			gateway = a
		}
	}
	if !gateway.IsValid() {
		return netip.Addr{}, nil, fmt.Errorf("%s's address for its AppVMs is not known: say --gateway ADDRESS, or set vif.gateway in "+
			"dom0's netvmd.toml as it is in %[1]s", netvm.Name)
	}
	if gateway == t.Address {
		return netip.Addr{}, nil, fmt.Errorf("%s cannot be both dom0's address and its gateway", gateway)
	}
	virtual := slices.DeleteFunc(slices.Clone(t.Config.DNS.VirtualOr(s.virtual)), func(a netip.Addr) bool { return !a.Is4() })
	return gateway, virtual, nil
}

// refuseChained refuses a netvm that would be cut off itself.
func (t *tool) refuseChained(ctx context.Context, w wish) error {
	above, err := t.store.above(ctx, w.netvm, w.others)
	if err != nil || len(above) == 0 {
		return err
	}
	return fmt.Errorf("%s has its network from %s, which would be paused: say --netvm %s", w.netvm.Name, names(above), above[0].Name)
}

func (t *tool) refuseCard(ctx context.Context, w wish) error {
	card, err := t.store.card(ctx, w.card.MAC)
	if err == nil && card != "" {
		err = fmt.Errorf("dom0 has a network card %s already, of which no journal tells: `%s` first", w.card.MAC, command(detachArgs(card)...))
	}
	return err
}

func (t *tool) refuseRoute(context.Context, wish) error {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list the routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		return fmt.Errorf("dom0 has a default route already (%s): it is on a network, and needs no netvm", r)
	}
	return nil
}

// climb takes all steps.
func (t *tool) climb(ctx context.Context, j *journal, w wish) error {
	paused, err := t.pauseAll(ctx, j, w)
	if err != nil {
		return err
	}
	if err := t.take(ctx, j, w.card); err != nil {
		return err
	}
	if err := t.say("wait for the card"); err != nil {
		return err
	}
	link, err := t.awaitCard(ctx, w.card)
	if err != nil {
		return err
	}
	for _, s := range w.onLink(link.Attrs().Name) {
		if err := t.take(ctx, j, s); err != nil {
			return err
		}
	}
	return t.say("dom0 is on the network through %s. Other domains stand paused (%d): `qvm-dom0-network-via-netvm down` "+
		"takes dom0 off the network, and lets them go on.", w.netvm.Name, paused)
}

// onLink are the steps that need the card.
func (w wish) onLink(name string) []step {
	return []step{
		configure{Interface: name, MAC: w.card.MAC, Address: w.card.Address, Gateway: w.gateway, Servers: w.servers},
		resolve{Path: w.resolvConf, Saved: w.saved, Servers: w.servers},
	}
}

// maxLooks bounds how often it is looked for domains that start while others are paused.
const maxLooks = 10

// pauseAll pauses domains until a look finds none that runs.
func (t *tool) pauseAll(ctx context.Context, j *journal, w wish) (paused int, err error) {
	for range maxLooks {
		domains, err := t.xl.list(ctx)
		if err != nil {
			return paused, err
		}
		if _, is := find(domains, func(d Domain) bool { return d.same(w.netvm) && d.running() }); !is {
			return paused, fmt.Errorf("%s does not run any more", w.netvm)
		}
		running := t.toPause(domains, w.netvm)
		if len(running) == 0 {
			return paused, nil
		}
		for _, d := range running {
			if err := t.take(ctx, j, pause{d}); err != nil {
				return paused, err
			}
			paused++
		}
	}
	return paused, fmt.Errorf("domains go on starting after %d looks: stop what starts them first", maxLooks)
}

// take writes a step down, says it, and takes it.
func (t *tool) take(ctx context.Context, j *journal, s step) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("before it could %s: %w", s, err)
	}
	if err := t.say("%s", s); err != nil {
		return err
	}
	if err := j.take(s); err != nil {
		return err
	}
	return s.do(ctx, t)
}

// rehearse prints the steps.
func (t *tool) rehearse(ctx context.Context, w wish) error {
	var steps []step
	for _, d := range w.others {
		steps = append(steps, pause{d})
	}
	steps = append(append(steps, w.card), w.onLink("the card")...)
	for i, s := range steps {
		if err := t.say("%d. %s", i+1, s); err != nil {
			return err
		}
	}
	return ctx.Err()
}
