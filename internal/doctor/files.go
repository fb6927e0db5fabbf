package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"netvmd/internal/parts"
	"netvmd/internal/store"
)

// configuration is whether the file can be used.
type configuration struct {
	path  string
	there bool
	err   error
}

func readConfiguration(_ context.Context, m *machine) (configuration, error) {
	if errors.Is(m.confErr, fs.ErrPermission) {
		return configuration{}, m.confErr
	}
	there, err := m.exists(m.configPath)
	return configuration{m.configPath, there, m.confErr}, err
}

func (c configuration) judge() finding {
	switch {
	case errors.Is(c.err, fs.ErrNotExist):
		return fail(c.path+" is missing", "Name a file that is there with --config or NETVMD_CONFIG")
	case c.err != nil:
		return fail(c.err.Error(), "Mend that in the file, and run: systemctl reload netvmd")
	case !c.there:
		return fine("there is no %s: every key has its default", c.path)
	}
	return fine("%s is valid", c.path)
}

// newConfiguration are configurations of a newer release that the package manager laid beside the admin's.
type newConfiguration struct {
	path   string
	beside []string
}

// newEndings are what package managers put behind a name then: dpkg(1), rpm(8), pacman(8).
var newEndings = []string{".dpkg-dist", ".dpkg-new", ".rpmnew", ".pacnew"}

func readNewConfiguration(_ context.Context, m *machine) (newConfiguration, error) {
	out := newConfiguration{path: m.configPath}
	for _, ending := range newEndings {
		there, err := m.exists(m.configPath + ending)
		if err != nil {
			return out, err
		}
		if there {
			out.beside = append(out.beside, m.configPath+ending)
		}
	}
	return out, nil
}

func (n newConfiguration) judge() finding {
	if len(n.beside) > 0 {
		return warn(strings.Join(n.beside, " and ")+" has new words on the keys; "+n.path+" stayed as you had it",
			"Run: diff -u "+n.path+" "+n.beside[0]+", take over what you like, and remove it")
	}
	return fine("none waits to be compared")
}

// permissions are the files and folders that others than root may write, in words.
type permissions struct{ paths, why []string }

func readPermissions(_ context.Context, m *machine) (permissions, error) {
	var out permissions
	for _, path := range []string{
		m.configPath, filepath.Dir(m.configPath), m.conf.RuntimeDir, filepath.Join(m.conf.RuntimeDir, "vifs"), m.conf.StateDir,
		m.conf.Hooks.NetworkHooksDir,
	} {
		info, err := os.Stat(m.path(path))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return out, err
		}
		if why := writable(info); why != "" {
			out.paths, out.why = append(out.paths, path), append(out.why, path+" "+why)
		}
	}
	return out, nil
}

// writable says why others than root may write a file, "" if they may not.
func writable(info os.FileInfo) string {
	owner := info.Sys().(*syscall.Stat_t).Uid // on Linux it is always that
	switch {
	case owner != 0:
		return fmt.Sprintf("belongs to user %d", owner)
	case info.IsDir() && info.Mode()&os.ModeSticky != 0:
		return "" // others may add files there, and not replace root's
	case info.Mode()&0o002 != 0:
		return "may be written by everybody"
	case info.Mode()&0o020 != 0:
		return "may be written by its group"
	}
	return ""
}

func (p permissions) judge() finding {
	if len(p.paths) > 0 {
		all := strings.Join(p.paths, " ")
		return fail(strings.Join(p.why, "; ")+": whoever may, becomes root here", "Run: chown root "+all+" && chmod go-w "+all)
	}
	return fine("they are root's alone")
}

// settings are what the toolstack says of all vifs.
type settings struct {
	xen               bool
	kind              string
	gateway, gateway6 netip.Addr
	virtual           []netip.Addr
	err               error
}

func readStore(ctx context.Context, m *machine) (settings, error) {
	xen, err := m.onXen()
	if err != nil {
		return settings{}, err
	}
	s := settings{xen: xen}
	from, err := store.Open(ctx, parts.StoreOptions(m.conf))
	if err != nil {
		s.err = err
		return s, nil
	}
	if s.kind, s.err = from.Kind(), from.Close(); s.err != nil {
		return s, nil
	}
	said, done, err := parts.Settings(ctx, m.conf)
	if err != nil {
		s.err = err
		return s, nil
	}
	defer done()
	s.gateway, s.gateway6, s.virtual = said.Gateway, said.Gateway6, said.Virtual
	return s, nil
}

func (s settings) judge() finding {
	switch {
	case s.err != nil:
		return fail(s.err.Error(), "Start the store (qubes-db.service, xenstored.service), or mend what it says")
	case !s.gateway.IsValid() && s.xen:
		return fail("neither the store ("+s.kind+") nor vif.gateway says the vifs' gateway: no AppVM comes up", "Set vif.gateway")
	case !s.gateway.IsValid():
		return warn("neither the store ("+s.kind+") nor vif.gateway says the vifs' gateway", "Set vif.gateway")
	}
	from := s.kind
	if from == store.None {
		from = "the configuration alone"
	}
	six := "none"
	if s.gateway6.IsValid() {
		six = s.gateway6.String()
	}
	return fine("from %s: gateway %s, for IPv6 %s, virtual DNS %s", from, s.gateway, six, strings.Trim(fmt.Sprint(s.virtual), "[]"))
}

// xenStore is where a vif's own nodes are, whatever says the settings.
type xenStore struct {
	xen bool
	err error
}

func readXenStore(ctx context.Context, m *machine) (xenStore, error) {
	xen, err := m.onXen()
	if err != nil || !xen {
		return xenStore{}, err
	}
	o := parts.StoreOptions(m.conf)
	o.Kind = store.XenStore
	from, err := store.Open(ctx, o)
	if err == nil {
		err = from.Close()
	}
	return xenStore{true, err}, nil
}

func (x xenStore) judge() finding {
	switch {
	case !x.xen:
		return fine("not needed: this is no domain of Xen")
	case x.err != nil:
		return fail(x.err.Error()+": the hotplug script cannot read what AppVMs' cards are to have",
			"Run: modprobe xenfs && mount -t xenfs xenfs /proc/xen, or set store.xenstore_path")
	}
	return fine("it answers")
}
