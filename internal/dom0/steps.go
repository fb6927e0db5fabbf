package dom0

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"

	"netvmd/internal/uplink"
)

// step is one change that up makes. Its value is all that down needs to take it back, in another process or after a crash.
type step interface {
	// String says what is done, for people, with the command if there is one.
	String() string
	do(ctx context.Context, t *tool) error
	// reversal says how it is taken back.
	reversal() string
	// undo finds out whether there is something to be taken back, and does it. It may be done again.
	undo(ctx context.Context, t *tool) error
	// lasts tells whether it is still there after a reboot.
	lasts() bool
	// check finds values that no up wrote.
	check() error
	line() line
}

// uuid is that of a domain, and of a boot.
var uuid = regexp.MustCompile(`^` + uuidForm + `$`)

// pause stops a domain.
type pause struct{ Domain }

func (p pause) line() line  { return line{Pause: &p} }
func (p pause) lasts() bool { return false }
func (p pause) String() string {
	return fmt.Sprintf("pause %s: %s", p.Domain, command(pauseArgs(p.ID)...))
}
func (p pause) reversal() string {
	return fmt.Sprintf("let %s go on: %s", p.Domain, command(unpauseArgs(p.ID)...))
}

func (p pause) check() error {
	if p.ID < 1 || p.ID > maxDomID || !uuid.MatchString(p.UUID) {
		return fmt.Errorf("pause: domid %d, UUID %.64q are no domain's", p.ID, p.UUID)
	}
	return nil
}

// do takes it that the domain was running just now.
func (p pause) do(ctx context.Context, t *tool) error {
	_, err := t.xl.run(ctx, pauseArgs(p.ID)...)
	return t.unlessGone(ctx, p.Domain, err)
}

func (p pause) undo(ctx context.Context, t *tool) error {
	domains, err := t.xl.list(ctx)
	if err != nil {
		return err
	}
	if _, is := find(domains, func(d Domain) bool { return d.same(p.Domain) && d.paused && !d.stopped }); !is {
		return nil // it is gone, or somebody else lets it run
	}
	_, err = t.xl.run(ctx, unpauseArgs(p.ID)...)
	return t.unlessGone(ctx, p.Domain, err)
}

// unlessGone forgives an error about a domain that died meanwhile.
func (t *tool) unlessGone(ctx context.Context, domain Domain, failure error) error {
	if failure == nil {
		return nil
	}
	domains, err := t.xl.list(ctx)
	if err != nil {
		return fmt.Errorf("%w (and %w)", failure, err)
	}
	if _, is := find(domains, func(d Domain) bool { return d.same(domain) && !d.stopped }); !is {
		return nil
	}
	return failure
}

// attach gives dom0 a network card of the netvm.
type attach struct {
	Backend Domain     `json:"backend"`
	MAC     string     `json:"mac"`
	Address netip.Addr `json:"address"`
}

func (a attach) line() line  { return line{Attach: &a} }
func (a attach) lasts() bool { return false }
func (a attach) String() string {
	return fmt.Sprintf("give dom0 a network card of %s: %s", a.Backend.Name, command(attachArgs(a)...))
}
func (a attach) reversal() string {
	return "take dom0's network card away: " + command(detachArgs(a.MAC)...)
}

func (a attach) check() error { return checkMAC(a.MAC) }

func checkMAC(text string) error {
	if hardware, err := net.ParseMAC(text); err != nil || hardware.String() != text {
		return fmt.Errorf("%.64q is no MAC", text)
	}
	return nil
}

func (a attach) do(ctx context.Context, t *tool) error {
	_, err := t.xl.run(ctx, attachArgs(a)...)
	return err
}

func (a attach) undo(ctx context.Context, t *tool) error {
	there, err := t.store.card(ctx, a.MAC)
	if err != nil {
		return err
	}
	if there != "" {
		if _, err := t.xl.run(ctx, detachArgs(a.MAC)...); err != nil {
			return err
		}
	}
	return t.awaitGone(ctx, a.MAC)
}

// configure makes the card dom0's way out.
type configure struct {
	Interface string       `json:"interface"`
	MAC       string       `json:"mac"`
	Address   netip.Addr   `json:"address"`
	Gateway   netip.Addr   `json:"gateway"`
	Servers   []netip.Addr `json:"servers"`
}

func (c configure) line() line   { return line{Configure: &c} }
func (c configure) lasts() bool  { return false }
func (c configure) check() error { return checkMAC(c.MAC) }
func (c configure) String() string {
	return fmt.Sprintf("configure %s: %s, default route, gateway %s", c.Interface, c.Address, c.Gateway)
}
func (c configure) reversal() string { return "set " + c.Interface + " down" }

func (c configure) do(ctx context.Context, t *tool) error {
	hardware, err := net.ParseMAC(c.MAC)
	if err != nil {
		return err
	}
	_, err = t.uplinks().Link(ctx, uplink.Spec{
		Interface: c.Interface, MAC: hardware, Addresses: []netip.Prefix{netip.PrefixFrom(c.Address, c.Address.BitLen())},
		Gateway: c.Gateway, Resolvers: c.Servers, DefaultRoute: true,
	})
	return err
}

func (c configure) undo(ctx context.Context, t *tool) error {
	_, err := t.uplinks().Unlink(ctx, c.Interface)
	return err
}

func (t *tool) uplinks() *uplink.Setup {
	return uplink.New(t.Config.RuntimeDir, t.Config.DNS.ResolvConf, t.Log)
}

// resolve has dom0 ask the netvm's nameservers.
type resolve struct {
	Path    string       `json:"path"`
	Saved   string       `json:"saved"` // where what the file was is kept
	Servers []netip.Addr `json:"servers"`
}

func (r resolve) line() line  { return line{Resolve: &r} }
func (r resolve) lasts() bool { return true }
func (r resolve) String() string {
	return fmt.Sprintf("write %s: %s", r.Path, addresses(r.Servers))
}
func (r resolve) reversal() string { return "restore " + r.Path }

func (r resolve) check() error {
	if !filepath.IsAbs(r.Path) || !filepath.IsAbs(r.Saved) {
		return fmt.Errorf("resolve: %.64q and %.64q must be absolute paths", r.Path, r.Saved)
	}
	return nil
}

func (r resolve) file(t *tool) uplink.ResolvConf {
	return uplink.ResolvConf{Path: r.Path, Saved: r.Saved, Protected: t.uplinks().Protected}
}

func (r resolve) do(_ context.Context, t *tool) error {
	_, why, err := r.file(t).Write(r.Servers)
	if err == nil && why != "" {
		return t.say("%s is left alone, as %s: dom0 finds no names unless it names %s", r.Path, why, addresses(r.Servers))
	}
	return err
}

func (r resolve) undo(_ context.Context, t *tool) error {
	_, err := r.file(t).Restore()
	return err
}

func addresses(list []netip.Addr) string {
	texts := make([]string, len(list))
	for i, a := range list {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}
