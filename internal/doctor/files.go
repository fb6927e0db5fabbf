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

	"netvmd/internal/config"
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

// permissions are the files and folders that others than root may write, in words.
type permissions struct{ paths, why []string }

func readPermissions(_ context.Context, m *machine) (permissions, error) {
	var out permissions
	for _, path := range []string{
		m.configPath, filepath.Dir(m.configPath), m.conf.RuntimeDir, filepath.Join(m.conf.RuntimeDir, "vifs"), m.conf.Hooks.NetworkHooksDir,
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
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case owner != 0:
		return fmt.Sprintf("belongs to user %d", owner)
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
	wanted            config.StoreKind
	gateway, gateway6 netip.Addr
	virtual           []netip.Addr
	err               error
}

func readStore(ctx context.Context, m *machine) (settings, error) {
	s := settings{wanted: m.conf.Store.Kind}
	var err error
	if s.xen, err = m.onXen(); err != nil {
		return s, err
	}
	s.kind, s.err = parts.StoreKind(ctx, m.conf)
	if s.err != nil {
		return s, unlessOther(s.err)
	}
	said, done, err := parts.Settings(ctx, m.conf)
	if err != nil {
		s.err = err
		return s, unlessOther(err)
	}
	defer done()
	s.gateway, s.gateway6, s.virtual = said.Gateway, said.Gateway6, said.Virtual
	return s, nil
}

// unlessOther passes on that something is not allowed; any other error is a fact.
func unlessOther(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
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
