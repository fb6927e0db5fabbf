package packaging_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// installed is everything that make install puts somewhere, with what a path must be: a program, a text or a link.
var installed = map[string]string{
	"etc/netvmd/netvmd.toml":                                                    "text",
	"etc/xen/scripts/vif-route-netvm":                                           "link to /usr/lib/netvmd/vif-route-netvm",
	"etc/qubes/post-install.d/30-netvmd.sh":                                     "program",
	"etc/qubes/post-install.d/30-netvmd-vm.sh":                                  "program",
	"etc/xdg/autostart/netvm-tray-plain.desktop":                                "text",
	"etc/xdg/autostart/netvm-tray.desktop":                                      "text",
	"usr/bin/netvm-tray":                                                        "program",
	"usr/bin/netvmctl":                                                          "program",
	"usr/bin/netvmd":                                                            "program",
	"usr/bin/qvm-dom0-network-via-netvm":                                        "program",
	"usr/lib/netvmd/sysctl.conf":                                                "text",
	"usr/lib/netvmd/vif-route-netvm":                                            "program",
	"usr/lib/systemd/system-preset/75-netvmd.preset":                            "text",
	"usr/lib/systemd/system/NetworkManager-dispatcher.service.d/30-netvmd.conf": "text",
	"usr/lib/systemd/system/netvmd-firewall.service":                            "text",
	"usr/lib/systemd/system/netvm-uplink@.service":                              "text",
	"usr/lib/systemd/system/qubes-network-uplink@.service.d/30-netvmd.conf":     "text",
	"usr/lib/systemd/system/netvmd-vifs.service":                                "text",
	"usr/lib/systemd/system/netvmd.service":                                     "text",
	"usr/lib/systemd/system/qubes-network.service.d/30-netvmd.conf":             "text",
	"usr/lib/tmpfiles.d/netvmd.conf":                                            "text",
	"usr/lib/udev/rules.d/70-netvm-vifs.rules":                                  "text",
	"usr/lib/udev/rules.d/90-netvm-uplink.rules":                                "text",
	"usr/share/applications/netvm-tray.desktop":                                 "text",
	"usr/share/bash-completion/completions/qvm-dom0-network-via-netvm":          "text",
	"usr/share/zsh/site-functions/_qvm-dom0-network-via-netvm":                  "text",
	"usr/share/fish/vendor_completions.d/qvm-dom0-network-via-netvm.fish":       "text",
	"usr/share/bash-completion/completions/netvmctl":                            "text",
	"usr/lib/NetworkManager/conf.d/30-netvm-vifs.conf":                          "text",
	"usr/share/dbus-1/interfaces/org.qubes_os.NetVM1.xml":                       "text",
	"usr/share/dbus-1/system-services/org.qubes_os.NetVM1.service":              "text",
	"usr/share/dbus-1/system.d/org.qubes_os.NetVM1.conf":                        "text",
	"usr/share/doc/netvmd/examples/openvpn-dns":                                 "program",
	"usr/share/doc/netvmd/examples/wg0.conf":                                    "text",
	"usr/share/fish/vendor_completions.d/netvmctl.fish":                         "text",
	"usr/share/man/man1/netvm-tray.1":                                           "text",
	"usr/share/man/man1/netvmctl.1":                                             "text",
	"usr/share/man/man5/netvmd.toml.5":                                          "text",
	"usr/share/man/man5/org.qubes_os.NetVM1.5":                                  "text",
	"usr/share/man/man8/netvmd.8":                                               "text",
	"usr/share/man/man8/netvm-uplink.8":                                         "text",
	"usr/share/man/man8/qvm-dom0-network-via-netvm.8":                           "text",
	"usr/share/man/man8/vif-route-netvm.8":                                      "text",
	"usr/share/polkit-1/actions/org.qubes_os.NetVM1.policy":                     "text",
	"usr/share/zsh/site-functions/_netvmctl":                                    "text",
}

// root is what make install made, and where: with the test that looks at it.
type root struct {
	*testing.T
	dir string
}

func (r root) path(name string) string { return filepath.Join(r.dir, name) }

func (r root) read(name string) string {
	r.Helper()
	text, err := os.ReadFile(r.path(name))
	if err != nil {
		r.Fatal(err)
	}
	return string(text)
}

// output runs an installed program, and wants it to succeed and to be silent on standard error.
func (r root) output(program string, args ...string) string {
	r.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "MANWIDTH=80", "LC_ALL=C.UTF-8")
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil || complaints.Len() > 0 {
		r.Fatalf("%s %q: %v: %s", program, args, err, complaints.String())
	}
	return string(out)
}

// makeCommand is our Makefile's make, which knows nothing of the make that runs the tests, and speaks English.
func makeCommand(args ...string) *exec.Cmd {
	cmd := exec.Command("make", append([]string{"-C", ".."}, args...)...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS=")
	}), "LC_ALL=C")
	return cmd
}

// scratch is a folder that all tests share; TestMain removes it.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "packaging"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(scratch); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// install runs make install, once for all tests.
var install = sync.OnceValues(func() (dir string, err error) {
	dir = filepath.Join(scratch, "root")
	out, err := makeCommand("install", "BIN="+filepath.Join(scratch, "bin"), "DESTDIR="+dir, "VERSION=1.2.3").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("make install: %w\n%s", err, out)
	}
	return dir, nil
})

// installedRoot is what make install made, for that test.
func installedRoot(t *testing.T) root {
	t.Helper()
	dir, err := install()
	if err != nil {
		t.Fatal(err)
	}
	return root{t, dir}
}

func TestMakeInstall(t *testing.T) {
	r := installedRoot(t)
	for _, tc := range []struct {
		name  string
		check func(root)
	}{
		{"every file is where it belongs, and nothing else is there", root.holdsWhatBelongs},
		{"units and pages name what is installed", root.namesWhatIsThere},
		{"the desktop's entries are valid, and start what is installed with its picture", root.entriesAreValid},
		{"every program says its version", root.saysItsVersion},
		{"the shells' completions", root.completes},
		{"every page is read without a warning and has its sections", root.pagesAreWhole},
		{"netvmctl's page has every command and flag", root.pageHasCommands},
		{"the other programs' pages have their flags", root.pagesHaveFlags},
		{"the tray's page has every icon", root.pageHasIcons},
		{"the bus's page has every member", root.pageHasMembers},
		{"the configuration's page has every key with its default", root.pageHasKeys},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.check(root{t, r.dir}) })
	}
}

func (r root) holdsWhatBelongs() {
	want := make(map[string]string)
	for name, kind := range installed {
		want[name] = kind
	}
	for _, name := range pictures() {
		want[name] = "text"
	}
	err := filepath.WalkDir(r.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(r.dir, path) // path is below it
		is := "text"
		info, err := d.Info()
		switch {
		case err != nil:
			return err
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			is = "link to " + target
		case info.Mode().Perm() == 0o755:
			is = "program"
		case info.Mode().Perm() != 0o644:
			is = info.Mode().String()
		}
		if want[name] != is {
			r.Errorf("%s is a %s, want %q", name, is, want[name])
		}
		delete(want, name)
		return nil
	})
	if err != nil {
		r.Fatal(err)
	}
	for name := range want {
		r.Errorf("%s is missing", name)
	}
}

// namesWhatIsThere follows what the installed texts say of each other: units name programs and pages, pages name files.
func (r root) namesWhatIsThere() {
	for name := range installed {
		for _, m := range regexp.MustCompile(`(?m)^Exec.*?[= ](/usr/\S*netvm\S*)`).FindAllStringSubmatch(r.readText(name), -1) {
			if _, ok := installed[m[1][1:]]; !ok {
				r.Errorf("%s names %s, which is not installed", name, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`man:(\S+)\((\d)\)`).FindAllStringSubmatch(r.readText(name), -1) {
			if page := "usr/share/man/man" + m[2] + "/" + m[1] + "." + m[2]; installed[page] == "" {
				r.Errorf("%s names the page %s, which is not installed", name, page)
			}
		}
		if !strings.HasPrefix(name, "usr/share/man/") {
			continue
		}
		for _, path := range regexp.MustCompile(`/(?:usr|etc/netvmd|etc/xen)/\S*\w`).FindAllString(r.man(name), -1) {
			if _, err := os.Lstat(r.path(path)); err != nil && strings.Contains(strings.ToLower(path), "netvm") {
				r.Errorf("%s names %s, which is not installed", name, path)
			}
		}
	}
}

// readText is empty for a program and a link.
func (r root) readText(name string) string {
	if installed[name] != "text" {
		return ""
	}
	return r.read(name)
}

func (r root) entriesAreValid() {
	for name := range installed {
		if strings.HasSuffix(name, ".desktop") {
			if said := r.output("desktop-file-validate", r.path(name)); said != "" {
				r.Errorf("%s: %s", name, said)
			}
			r.matches(`(?m)^Exec=(netvm-tray)( |$)`, r.read(name))
			r.matches(`(?m)^Icon=(netvm-tray)$`, r.read(name))
		}
	}
}

func (r root) saysItsVersion() {
	for _, program := range []string{
		"usr/bin/netvmd", "usr/bin/netvm-tray", "usr/lib/netvmd/vif-route-netvm", "usr/bin/qvm-dom0-network-via-netvm",
	} {
		if got := r.output(r.path(program), "--version"); got != filepath.Base(program)+" 1.2.3\n" {
			r.Errorf("%s says %q", program, got)
		}
	}
	if got := r.output(r.path("usr/bin/netvmctl"), "version"); !strings.Contains(got, "netvmctl 1.2.3") {
		r.Errorf("netvmctl says %q", got)
	}
}

func (r root) completes() {
	for _, name := range []string{
		"usr/share/bash-completion/completions/netvmctl", "usr/share/zsh/site-functions/_netvmctl", "usr/share/fish/vendor_completions.d/netvmctl.fish",
	} {
		if !strings.Contains(r.read(name), "__complete") {
			r.Errorf("%s asks netvmctl for nothing", name)
		}
	}
	r.output("bash", "-n", r.path("usr/share/bash-completion/completions/netvmctl"))
	const name, xl = "qvm-dom0-network-via-netvm", "xl() { printf '%-40s %s\n' Name ID Domain-0 0 sys-net 1 work 2; }\n"
	for line, want := range map[string]string{
		"":                     "--dry-run --config --help up down --version",
		"u":                    "up",
		"up --":                "--dry-run --config --help --netvm --address --gateway",
		"down --":              "--dry-run --config --help",
		"up --netvm ":          "sys-net work",
		"up --netvm w":         "work",
		"up --address ":        "",
		"up --netvm work --ga": "--gateway",
	} {
		script := xl + ". " + r.path("usr/share/bash-completion/completions/"+name) + `
			COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _qvm_dom0_network_via_netvm; echo "${COMPREPLY[*]}"`
		got := r.output("bash", append([]string{"-c", script, "bash", name}, strings.Split(line, " ")...)...)
		if strings.TrimSpace(got) != want {
			r.Errorf("%s %s is completed to %q, want %q", name, line, got, want)
		}
	}
}
