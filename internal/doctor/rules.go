package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"netvmd/internal/config"
	"netvmd/internal/firewall"
	"netvmd/internal/netvm"
	"netvmd/internal/parts"
	"netvmd/internal/vif"
)

// rules are what the firewall says, read at one go: with iptables each question starts processes.
type rules struct {
	backend     string
	missing     []string // what the rules need and the kernel has not
	flowtables  bool
	loaded      bool
	differences []string // from what must be
	targets     []netvm.Target
	ownBase     bool
	vifs        vif.Inspection
}

func (m *machine) readRules(ctx context.Context) (rules, error) {
	b, err := parts.Firewall(ctx, m.conf, m.log)
	if err != nil {
		return rules{}, err
	}
	r := rules{backend: b.Name()}
	if r.missing, r.flowtables, err = b.Rehearse(ctx); err != nil {
		return r, err
	}
	if r.loaded, err = b.Loaded(ctx); err != nil {
		return r, err
	}
	if r.differences, err = parts.Differences(ctx, b, m.conf, parts.Virtual(ctx, m.conf, m.log)); err != nil {
		return r, err
	}
	r.differences = slices.DeleteFunc(r.differences, firewall.AboutRefusals) // a check of its own
	if r.targets, err = b.Targets(ctx); err != nil {
		return r, err
	}
	if r.ownBase, err = b.OwnBase(ctx); err != nil {
		return r, err
	}
	r.vifs, err = vif.Inspect(ctx, m.conf.RuntimeDir, b)
	return r, err
}

// kernelRules is whether the kernel can hold our rules.
type kernelRules struct {
	rules
	err error
}

func readKernelRules(_ context.Context, m *machine) (kernelRules, error) {
	r, err := m.rules()
	return kernelRules{r, err}, nil
}

func (k kernelRules) judge() finding {
	switch {
	case k.err != nil && k.backend == "":
		return fail(k.err.Error(), "Install the package nftables, and boot a kernel that has nf_tables")
	case k.err != nil:
		return finding{state: Unknown, found: k.err.Error()}
	case len(k.missing) > 0 && k.backend == firewall.KindIPTables:
		return fail(strings.Join(k.missing, "; "), "Boot a kernel with the modules xt_CT, xt_devgroup, xt_REDIRECT and xt_nat")
	case len(k.missing) > 0:
		return fail("the kernel does not take "+strings.Join(k.missing, "; "),
			"Boot Linux 5.10 or newer with nf_tables, NAT, reject and conntrack zones (CONFIG_NF_CONNTRACK_ZONES)")
	}
	return fine("%s: the kernel takes all of netvmd's rules", k.backend)
}

// flowtable is about established flows, whose long way is slow but right.
type flowtable struct {
	rules
	wanted config.Flowtable
}

func readFlowtable(_ context.Context, m *machine) (flowtable, error) {
	r, err := m.rules()
	return flowtable{r, m.conf.Firewall.Flowtable}, err
}

func (f flowtable) judge() finding {
	switch {
	case f.wanted == config.FlowtableNever:
		return fine("switched off by firewall.flowtable: each packet passes all rules")
	case f.backend == firewall.KindIPTables:
		return fine("not with iptables: each packet passes all rules")
	case !f.flowtables:
		return fine("this kernel has none (CONFIG_NF_FLOW_TABLE): each packet passes all rules")
	}
	return fine("the kernel has flowtables")
}

// loadRules mends what is missing or damaged.
const loadRules = "Run: netvmctl firewall load"

// whole is whether the rules are as they must be.
type whole struct{ rules }

func readFirewall(_ context.Context, m *machine) (whole, error) {
	r, err := m.rules()
	return whole{r}, err
}

func (w whole) judge() finding {
	switch {
	case !w.loaded:
		return fail("no rules of netvmd are loaded ("+w.backend+"): no vif comes up, and AppVMs have no DNS", loadRules)
	case len(w.differences) > 0:
		return fail(strings.Join(w.differences, "; "), loadRules+", and then: systemctl restart netvmd")
	}
	return fine("loaded and whole (%s)", w.backend)
}

// base is who closes the netvm itself.
type base struct {
	own, loaded bool
	wanted      config.Base
}

func readBase(_ context.Context, m *machine) (base, error) {
	r, err := m.rules()
	return base{r.ownBase, r.loaded, m.conf.Firewall.Base}, err
}

// closed tells whether there is a base firewall, ours or Qubes'.
func (b base) closed() bool { return b.wanted != config.BaseNever && (b.loaded || !b.own) }

func (b base) judge() finding {
	switch {
	case b.wanted == config.BaseNever:
		return warn("firewall.base = \"never\": nothing of netvmd closes the netvm itself, and AppVMs to each other",
			"Make sure that rules of your own do, or set firewall.base to \"auto\"")
	case !b.closed():
		return fail("none is loaded: the netvm and its AppVMs are open to each other", loadRules)
	case b.own:
		return fine("netvmd's own")
	}
	return fine("that of Qubes is loaded, and netvmd's stands aside")
}

// dns is where AppVMs' queries go.
type dns struct{ targets []netvm.Target }

// readDNS asks the kernel, and netvmd where the caller may not do that.
func readDNS(_ context.Context, m *machine) (dns, error) {
	if m.uid != 0 {
		status, err := m.status()
		return dns{status.DNSTargets}, err
	}
	r, err := m.rules()
	return dns{r.targets}, err
}

func (d dns) judge() finding {
	var all []string
	refused := 0
	for _, t := range d.targets {
		where := t.Resolver.Addr.String()
		if !t.Served() {
			where = "refused"
			refused++
		}
		all = append(all, fmt.Sprintf("%s → %s", t.Virtual, where))
	}
	found := strings.Join(all, ", ")
	switch {
	case len(d.targets) == 0:
		return fail("no virtual address leads anywhere: AppVMs' queries time out", loadRules)
	case refused == len(d.targets):
		return warn(found+": there is no resolver", "Connect to a network; netvmctl dns says what was announced and dropped")
	case refused > 0:
		return warn(found+": some have no resolver of their family", "Connect to a network that announces one, or set dns.servers")
	}
	return fine("%s", found)
}
