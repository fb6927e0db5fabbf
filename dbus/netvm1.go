// Package dbus is the daemon's face on the system bus: org.qubes_os.NetVM1. It holds the contract (the XML), the
// service that shows a status, and a typed client.
package dbus

import (
	"context"
	_ "embed"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
)

// The names of the contract.
const (
	Name      = "org.qubes_os.NetVM1"
	Interface = "org.qubes_os.NetVM1"
	Path      = godbus.ObjectPath("/org/qubes_os/NetVM1")
)

const (
	busName           = "org.freedesktop.DBus"
	properties        = busName + ".Properties"
	propertiesChanged = "PropertiesChanged"
	targetsChanged    = "DnsTargetsChanged"
	vifAdded          = "VifAdded"
	vifRemoved        = "VifRemoved"
)

// Contract is the introspection XML that the service answers with.
//
//go:embed org.qubes_os.NetVM1.xml
var Contract string

const (
	// callDeadline bounds every call on the bus that needs nobody's leave.
	callDeadline = 5 * time.Second
	// questionDeadline bounds polkit's answer: a person may be typing a password.
	questionDeadline = 2 * time.Minute
	// workDeadline bounds what the daemon does for a caller.
	workDeadline = 10 * time.Second
)

// Daemon is what callers may ask of netvmd beside its status. Each call ends with ctx.
type Daemon interface {
	// Refresh reads every source again and brings the kernel to what they say; changed tells whether anything was written.
	Refresh(ctx context.Context) (changed bool, err error)
	// SetOverride puts an override in force; it returns when the kernel has it. A server that can be no resolver is a
	// netvm.InvalidError, one caller too many wraps netvm.ErrTooMany, and nothing was changed. Another error may leave it
	// noted, for a kernel that did not take it in time and is told again: Holders says whether the caller has one then.
	SetOverride(ctx context.Context, o netvm.Override) error
	// ClearOverride takes the holder's override back or, if it has none, the persistent one.
	ClearOverride(ctx context.Context, holder string) error
	// Holders are the bus names whose leaving ends an override, those of before a restart of netvmd too.
	Holders() []string
	// Left says that a holder has left the bus.
	Left(holder string)
	// Routes lists the main IPv4 routing table, Tally what the kernel counted.
	Routes(ctx context.Context) ([]netvm.Route, error)
	Tally(ctx context.Context) (netvm.Tally, error)
}
