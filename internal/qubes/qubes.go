// Package qubes says what Qubes OS makes of this domain: whether it is one of Qubes', what dom0 calls it, and which of
// its services dom0 has switched on.
package qubes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"netvmd/internal/store/qubesdb"
)

// Netvmd is the service with which a domain runs netvmd, as qvm-service(1) takes it.
const Netvmd = "netvmd"

const (
	// marker is in every template and domain of Qubes (qubes-core-agent).
	marker = "/usr/share/qubes/marker-vm"
	// services has a file for each service that is on, made at boot (qubes-sysinit).
	services = "/run/qubes-service"
	// ownName is where QubesDB has what dom0 calls the domain.
	ownName = "/name"
)

// Domain is this machine, as far as Qubes has to do with it. Its files are read anew each time.
type Domain struct {
	Root   string // before the path of every file; "/" but in tests
	Socket string // QubesDB's
}

// Is tells whether it is a domain of Qubes.
func (d Domain) Is() (bool, error) { return d.exists(marker) }

// Runs tells whether dom0 has switched a service on. The file counts, as the units go by it.
func (d Domain) Runs(service string) (bool, error) { return d.exists(Flag(service)) }

// Flag is the file that is there when a service is on.
func Flag(service string) string { return filepath.Join(services, service) }

func (d Domain) exists(path string) (bool, error) {
	_, err := os.Stat(filepath.Join(d.Root, path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Off tells whether this is a domain of Qubes that does not run netvmd.
func (d Domain) Off() (bool, error) {
	is, err := d.Is()
	if err != nil || !is {
		return false, err
	}
	on, err := d.Runs(Netvmd)
	return !on, err
}

// TurnOn says how a service is switched on.
func (d Domain) TurnOn(ctx context.Context, service string) string {
	name := d.Name(ctx)
	if name == "" {
		return fmt.Sprintf("In dom0: qvm-service <this domain's name> %s on, and start the domain again", service)
	}
	return fmt.Sprintf("In dom0: qvm-service %s %s on, and start %[1]s again", name, service)
}

// nameForm is that of a domain's name in Qubes, which has at most 31 characters (qubes-core-admin, qubes/vm).
var nameForm = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_.-]{0,30}$`)

// Name is what dom0 calls the domain, by QubesDB or else by the host's name, which Qubes makes the same; "" = not known.
func (d Domain) Name(ctx context.Context) string {
	name, err := d.ask(ctx)
	if err != nil {
		text, err := os.ReadFile(filepath.Join(d.Root, "/proc/sys/kernel/hostname"))
		if err != nil {
			return ""
		}
		name = strings.TrimSpace(string(text))
	}
	if !nameForm.MatchString(name) {
		return ""
	}
	return name
}

func (d Domain) ask(ctx context.Context) (string, error) {
	db, err := qubesdb.Open(ctx, d.Socket)
	if err != nil {
		return "", err
	}
	name, err := db.Read(ctx, ownName)
	return name, errors.Join(err, db.Close())
}
