package dbus

import (
	"context"
	"errors"
	"fmt"

	godbus "github.com/godbus/dbus/v5"
)

// The errors of the contract, org.qubes_os.NetVM1.Error.*.
const (
	errorPrefix      = Interface + ".Error."
	AccessDenied     = errorPrefix + "AccessDenied"     // neither root nor polkit's yes
	InvalidArguments = errorPrefix + "InvalidArguments" // a value that makes no sense; nothing was changed
	LimitsExceeded   = errorPrefix + "LimitsExceeded"   // too much is asked at once; ask later
	Timeout          = errorPrefix + "Timeout"          // no answer within the daemon's deadline
	Failed           = errorPrefix + "Failed"
)

// The errors of D-Bus itself that are given or understood here, D-Bus specification and dbus-protocol.h.
const (
	busError            = "org.freedesktop.DBus.Error."
	busAccessDenied     = busError + "AccessDenied"
	busInteractive      = busError + "InteractiveAuthorizationRequired"
	busServiceUnknown   = busError + "ServiceUnknown"
	busNameHasNoOwner   = busError + "NameHasNoOwner"
	busNoReply          = busError + "NoReply"
	busDisconnected     = busError + "Disconnected"
	busInvalidArgs      = busError + "InvalidArgs"
	busUnknownObject    = busError + "UnknownObject"
	busUnknownInterface = busError + "UnknownInterface"
	busUnknownMethod    = busError + "UnknownMethod"
	busUnknownProperty  = busError + "UnknownProperty"
	busPropertyReadOnly = busError + "PropertyReadOnly"
)

var (
	// ErrNotRunning says that nobody owns org.qubes_os.NetVM1, or that its owner left before it answered.
	ErrNotRunning = errors.New("netvmd is not running: nobody owns " + Name + " on the system bus")
	// ErrNotAllowed says that the caller may not do that: neither root nor polkit's yes.
	ErrNotAllowed = errors.New("not allowed")
)

// Error is what netvmd, or the bus in its place, answered instead of a result.
type Error struct {
	Name     string // such as InvalidArguments
	Sentence string // for people
}

func (e Error) Error() string { return e.Sentence }

// refusal makes an error to be answered.
func refusal(name, format string, args ...any) error {
	return Error{Name: name, Sentence: fmt.Sprintf(format, args...)}
}

// understand turns what a call on the bus failed with into an error of this package.
func understand(method string, err error) error {
	var e godbus.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer in time: %w", method, err)
	case !errors.As(err, &e):
		return fmt.Errorf("%s: %w", method, err)
	}
	switch e.Name {
	case busServiceUnknown, busNameHasNoOwner:
		return ErrNotRunning
	case busNoReply, busDisconnected:
		return fmt.Errorf("%s: it left without an answer: %w", method, ErrNotRunning)
	case AccessDenied, busAccessDenied, busInteractive:
		return fmt.Errorf("%w: %s", ErrNotAllowed, e.Error())
	}
	return Error{Name: e.Name, Sentence: e.Error()}
}
