package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"netvmd/internal/lab/container"
	"netvmd/internal/lab/notify"
)

const (
	netvmName = "netvm"
	legacyBin = Root + "/bin-legacy"
)

// NetVM is a domain that others reach the network through: the netvm, with the uplinks, or a proxy behind it. It has the
// vifs, and netvmd.
type NetVM struct {
	*Domain

	// Gateway and Gateway6 are its own addresses towards the AppVMs.
	Gateway, Gateway6 netip.Addr

	resolvConf []netip.Addr // what its AppVMs have as nameservers

	// Machine is the container that is the netvm; nil while none was booted.
	Machine *container.Machine

	netvmd  *Process
	notices *notify.Listener // what netvmd says; nil before its first start
}

// newNetVM makes the host, without its daemons; its own vifs' gateway is netvmd.toml's, or the store's where o has a QubesDB
// that says it.
func newNetVM(name string, o Options, gateway, gateway6 netip.Addr) (*NetVM, error) {
	d, err := newDomain(name, o)
	if err != nil {
		return nil, err
	}
	v := &NetVM{Domain: d, Gateway: gateway, Gateway6: gateway6, resolvConf: o.Virtual}
	if v.resolvConf == nil {
		v.resolvConf = Virtual4 // as the stores say
	}
	if err := v.writeFiles(map[string]string{v.NetvmdConfig(): v.netvmdConfig()}); err != nil {
		return nil, err
	}
	if o.Backend == IPTablesLegacy {
		if err := linkLegacy(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := v.StartXenStore(); err != nil {
		return nil, err
	}
	if o.QubesDB == nil {
		return v, nil
	}
	if err := v.StartQubesDB(); err != nil {
		return nil, errors.Join(err, v.StopXenStore())
	}
	for key, value := range o.QubesDB {
		v.QubesDB.Set(key, value)
	}
	return v, nil
}

// writeConnections writes what NetworkManager can connect to.
func (v *NetVM) writeConnections() error {
	return v.writeFiles(map[string]string{
		v.nmDir() + "/home.nmconnection":        dhcpConnection(homeSite),
		v.nmDir() + "/office.nmconnection":      dhcpConnection(officeSite),
		v.nmDir() + "/vpn.nmconnection":         vpnConnection(vpnSite),
		v.nmDir() + "/home-static.nmconnection": staticConnection(homeSite),
	})
}

// linkLegacy makes a folder where the plain names of iptables mean the legacy ones.
func linkLegacy() error {
	if err := os.MkdirAll(legacyBin, 0o755); err != nil {
		return err
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, tool := range []string{"", "-save", "-restore"} {
			path, err := exec.LookPath(family + "-legacy" + tool)
			if err != nil {
				return err
			}
			if err := os.Symlink(path, filepath.Join(legacyBin, family+tool)); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	return nil
}

// Backend is what writes the kernel's rules in this lab.
func (v *NetVM) Backend() Backend { return v.options.Backend }

// end stops all that runs.
func (v *NetVM) end(ctx context.Context) error {
	var err error
	if v.Machine != nil {
		err = v.Machine.Close()
	}
	err = errors.Join(err, v.netvmd.Stop(ctx, syscall.SIGTERM))
	v.notices.Close()
	return errors.Join(err, v.Domain.end(ctx))
}
