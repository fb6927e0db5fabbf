package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"netvmd/packaging"
)

const (
	polkitName = "org.freedesktop.PolicyKit1"
	// Where polkitd looks for actions and for rules, polkit(8).
	polkitShare = "/usr/share/polkit-1"
	polkitEtc   = "/etc/polkit-1"
)

// findPolkit returns the path of polkitd, which is in no PATH.
func findPolkit() (string, error) {
	for _, path := range []string{"/usr/lib/polkit-1/polkitd", "/usr/libexec/polkitd", "/usr/libexec/polkit-1/polkitd"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("lab: no polkitd: install it with `apt-get install polkitd` (Debian) or `dnf install polkit` (Fedora)")
}

// StartPolkit starts a real polkitd in the domain, which knows our actions and no others, and waits until it is on the
// bus. rules are JavaScript, polkit(8); "" = none.
func (d *Domain) StartPolkit(ctx context.Context, rules string) error {
	program, err := findPolkit()
	if err != nil {
		return err
	}
	if d.polkit == nil {
		if err := d.Do(hidePolicies); err != nil {
			return fmt.Errorf("%s: the machine's polkit policies: %w", d.Name, err)
		}
	}
	if err := d.Do(func() error {
		return os.WriteFile(polkitEtc+"/rules.d/50-lab.rules", []byte(rules), 0o644)
	}); err != nil {
		return fmt.Errorf("%s: polkit's rules: %w", d.Name, err)
	}
	owned, err := d.awaitName(ctx, polkitName)
	if err != nil {
		return err
	}
	cmd := daemonCommand(ctx, program, "--no-debug")
	cmd.Env = d.Environ()
	if d.polkit, err = d.startDaemon(ctx, "polkitd", "", cmd); err != nil {
		return err
	}
	return d.polkit.await(ctx, owned, "take its name on the bus")
}

// StopPolkit ends polkitd.
func (d *Domain) StopPolkit(ctx context.Context) error { return d.polkit.Stop(ctx, syscall.SIGKILL) }

// Polkit returns polkitd's process, nil before it was started.
func (d *Domain) Polkit() *Process { return d.polkit }

// hidePolicies covers the machine's actions and rules: of these only ours are in the lab.
func hidePolicies() error {
	if err := os.Remove(polkitEtc); err != nil && !errors.Is(err, os.ErrNotExist) { // the link to the real one
		return err
	}
	if err := os.MkdirAll(polkitEtc+"/rules.d", 0o755); err != nil {
		return err
	}
	for _, dir := range []string{"actions", "rules.d"} {
		path := filepath.Join(polkitShare, dir)
		if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", path, err)
		}
	}
	return os.WriteFile(polkitShare+"/actions/org.qubes_os.NetVM1.policy", []byte(packaging.PolkitPolicy), 0o644)
}

// AllowUser is a rule that lets a user do everything that our policy names.
func AllowUser(u User) string {
	return fmt.Sprintf(`polkit.addRule(function(action, subject) {
	if (action.id.indexOf("org.qubes_os.NetVM1.") == 0 && subject.user == %q) return polkit.Result.YES;
});
`, u.Name)
}
