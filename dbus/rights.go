package dbus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode"

	godbus "github.com/godbus/dbus/v5"
)

// The actions of packaging/polkit/org.qubes_os.NetVM1.policy: polkit lets others than root refresh, and override.
const (
	ActionRefresh  = Interface + ".refresh"
	ActionOverride = Interface + ".override"
)

// polkit's D-Bus interface, polkit reference manual, "org.freedesktop.PolicyKit1.Authority".
const (
	polkitName           = "org.freedesktop.PolicyKit1"
	polkitPath           = godbus.ObjectPath("/org/freedesktop/PolicyKit1/Authority")
	polkitInterface      = polkitName + ".Authority"
	allowUserInteraction = uint32(1)
)

// questions numbers the questions to polkit, so that each can be cancelled.
var questions atomic.Uint64

// maxComm bounds a process's name, in bytes; the kernel's has at most 15 (TASK_COMM_LEN).
const maxComm = 64

// caller is who called, by the bus's word.
type caller struct{ uid, pid uint32 } // pid 0 = not known

// String says who that is, for people.
func (c caller) String() string {
	if c.pid == 0 {
		return fmt.Sprintf("user %d", c.uid)
	}
	return fmt.Sprintf("%s (pid %d, user %d)", comm(c.pid), c.pid, c.uid)
}

// comm is a process's name, proc_pid_comm(5). A process may call itself anything.
func comm(pid uint32) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "a process that has ended"
	}
	if len(name) > maxComm {
		name = name[:maxComm]
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text(strings.TrimSuffix(string(name), "\n")))
}

// identify asks the bus who has a name.
func identify(ctx context.Context, conn *godbus.Conn, name string) (caller, error) {
	var credentials dict
	var c caller
	if err := ask(ctx, conn, "GetConnectionCredentials", &credentials, name); err != nil {
		return c, err
	}
	// D-Bus specification, "org.freedesktop.DBus.GetConnectionCredentials": each may be missing.
	uid, ok := credentials["UnixUserID"].Value().(uint32)
	if !ok {
		return c, refusal(AccessDenied, "the bus does not say whose %s is", name)
	}
	c.uid = uid
	c.pid, _ = credentials["ProcessID"].Value().(uint32)
	return c, nil
}

// authorize lets root pass, and whom polkit lets; else the error says why not.
func (s *session) authorize(ctx context.Context, r *request, action string) (caller, error) {
	who, err := identify(ctx, s.asking, r.Sender)
	if err != nil || who.uid == 0 {
		return who, err
	}
	user := strconv.FormatUint(uint64(who.uid), 10)
	if !s.users.enter(user) {
		return who, refusal(LimitsExceeded, "too many calls of user %d are waiting for authorization; ask again later", who.uid)
	}
	defer s.users.leave(user)
	ctx, cancel := context.WithTimeoutCause(ctx, questionDeadline,
		refusal(Timeout, "nobody answered polkit's question within %s", questionDeadline))
	defer cancel()
	if r.interactive() { // a person is asked as long as the caller waits; without one polkit answers at once
		p, err := s.callers.follow(ctx, r.Sender)
		if err != nil {
			return who, err
		}
		defer s.callers.unfollow(ctx, p)
		go func() {
			select {
			case <-p.gone:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	return who, askPolkit(ctx, s.asking, r, action)
}

// askPolkit asks whether a caller may do something; nil = yes.
func askPolkit(ctx context.Context, conn *godbus.Conn, r *request, action string) error {
	type subject struct {
		Kind    string
		Details dict
	}
	var answer struct {
		Authorized, Challenge bool
		Details               map[string]string
	}
	var flags uint32
	if r.interactive() {
		flags = allowUserInteraction
	}
	polkit := conn.Object(polkitName, polkitPath)
	id := fmt.Sprintf("netvmd-%d", questions.Add(1))
	err := polkit.CallWithContext(ctx, polkitInterface+".CheckAuthorization", 0,
		subject{"system-bus-name", dict{"name": godbus.MakeVariant(r.Sender)}}, action, map[string]string{}, flags, id).Store(&answer)
	switch {
	case ctx.Err() != nil:
		// Without a reply there is nothing to wait for, and nothing to do about an error.
		polkit.Go(polkitInterface+".CancelCheckAuthorization", godbus.FlagNoReplyExpected|godbus.FlagNoAutoStart, nil, id)
		return context.Cause(ctx)
	case isAway(err):
		return refusal(AccessDenied, "only root may: polkit, which could allow it to others, is not running")
	case err != nil:
		return refusal(AccessDenied, "only root may: polkit, which could allow it to others, failed: %v", err)
	case answer.Authorized:
		return nil
	case answer.Challenge && !r.interactive():
		return refusal(AccessDenied, "polkit's %s needs a password, and the call does not allow to ask for one", action)
	}
	return refusal(AccessDenied, "neither root nor allowed by polkit's %s", action)
}

// isAway tells whether nobody has the name, and nobody could be started to have it.
func isAway(err error) bool {
	var e godbus.Error
	return errors.As(err, &e) &&
		(e.Name == busServiceUnknown || e.Name == busNameHasNoOwner || strings.HasPrefix(e.Name, busError+"Spawn."))
}
