// Package store reads the netvm's own settings where the toolstack puts them: in QubesDB on Qubes OS, in XenStore on
// other Xen systems. Every value is untrusted until it is parsed.
package store

import (
	"context"
	"fmt"
	"slices"

	"netvmd/internal/store/qubesdb"
	"netvmd/internal/store/xenstore"
)

// The kinds of stores; all but Auto are what Store.Kind says.
const (
	Auto     = "auto"     // the first that is there: QubesDB, XenStore, none
	QubesDB  = "qubesdb"  // Qubes OS 3 and newer
	XenStore = "xenstore" // any Xen; what Qubes OS 2 wrote there is understood
	None     = "none"     // a machine without a toolstack: nothing is set
)

// DefaultServiceDir is where a Qubes domain keeps its service flags as files.
const DefaultServiceDir = "/var/run/qubes-service"

// Options say which store is read.
type Options struct {
	Kind          string // Auto or one of the kinds
	QubesDBSocket string
	XenStorePath  string // xenstore.Auto, a socket or a device
	ServiceDir    string // of the service flags; "" = DefaultServiceDir
}

// Store is a connection to a store. Its methods may be called at the same time by several goroutines.
type Store struct {
	kind       string
	source     source
	keys       keys
	serviceDir string
}

// source is what the clients of both stores do.
type source interface {
	Read(ctx context.Context, path string) (string, error)
	Watch(ctx context.Context, paths ...string) (<-chan struct{}, error)
	Done() <-chan struct{}
	Err() error
	Close() error
}

// keys says where a store has what; "" = it does not have it.
type keys struct {
	missing           error // of Read, for a key that does not exist
	gateway, gateway6 string
	gatewayIsDNS      bool // it is the first virtual DNS address too
	dns               []string
	uplink            []string // present where another netvm serves this one
	harden            string
	mapping           string // a format for the AppVM's address and the last part of the path
	own               uplinkKeys
}

var qubesDBKeys = keys{
	missing:  qubesdb.ErrNoEntry,
	gateway:  "/qubes-netvm-gateway",
	gateway6: "/qubes-netvm-gateway6",
	dns:      []string{"/qubes-netvm-primary-dns", "/qubes-netvm-secondary-dns"},
	uplink:   []string{"/qubes-primary-dns", "/qubes-ip"},
	harden:   "/qubes-service/" + hardenService,
	mapping:  "/mapped-ip/%s/%s",
	own:      qubesDBUplink,
}

// As Qubes OS 2 had it.
var xenStoreKeys = keys{
	missing:      xenstore.ErrNoEntry,
	gateway:      "qubes_netvm_gateway",
	gatewayIsDNS: true,
	dns:          []string{"qubes_netvm_secondary_dns"},
	uplink:       []string{"qubes_ip"},
	own:          xenStoreUplink,
}

// watched are the keys whose changes matter.
func (k keys) watched() []string {
	var out []string
	for _, key := range slices.Concat([]string{k.gateway, k.gateway6, k.harden, k.own.gateway}, k.dns, k.uplink, k.own.dns) {
		if key != "" && !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	return out
}

// Open connects to the store. With Auto, where neither store is there, the kind is None and that is no error; a store
// that was asked for by its name must be there.
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("store.kind = %q: %w", o.Kind, err)
	}
	return s, nil
}

func open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{kind: o.Kind, serviceDir: o.ServiceDir}
	if s.serviceDir == "" {
		s.serviceDir = DefaultServiceDir
	}
	switch o.Kind {
	case None:
		s.source = nothing{}
		return s, nil
	case QubesDB:
		c, err := qubesdb.Open(ctx, o.QubesDBSocket)
		s.source, s.keys = c, qubesDBKeys
		return s, err
	case XenStore:
		c, err := xenstore.Open(ctx, o.XenStorePath)
		s.source, s.keys = c, xenStoreKeys
		return s, err
	case Auto:
		return openFirst(ctx, o)
	}
	return nil, fmt.Errorf("not one of %s, %s, %s, %s", Auto, QubesDB, XenStore, None)
}

// openFirst opens the first store that is there. That one is not there is no news.
func openFirst(ctx context.Context, o Options) (*Store, error) {
	for _, kind := range []string{QubesDB, XenStore} {
		o.Kind = kind
		if s, err := open(ctx, o); err == nil {
			return s, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	o.Kind = None
	return open(ctx, o)
}

// Kind says which store it is; never Auto.
func (s *Store) Kind() string { return s.kind }

// Close ends the connection.
func (s *Store) Close() error { return s.source.Close() }

// nothing is the source of a machine without a toolstack. There are no keys to be read or watched.
type nothing struct{}

func (nothing) Read(context.Context, string) (string, error)              { return "", nil }
func (nothing) Watch(context.Context, ...string) (<-chan struct{}, error) { return nil, nil }
func (nothing) Done() <-chan struct{}                                     { return nil }
func (nothing) Err() error                                                { return nil }
func (nothing) Close() error                                              { return nil }
