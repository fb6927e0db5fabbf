package dbus

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
	"netvmd/internal/systembus"
)

const (
	peer           = busName + ".Peer"
	introspectable = busName + ".Introspectable"
)

// method is one of those that can be called. Either answer or work is set.
type method struct {
	takes string // the arguments' types
	// answer gives the result at once.
	answer func(s *session, r *request) (systembus.Body, error)
	// check reads and checks the arguments, if there are any, before work gives the result in a goroutine of its own.
	check func(r *request) error
	work  work
	reads bool // work only waits for a reading of the kernel
}

type work func(ctx context.Context, s *session, r *request) (systembus.Body, error)

// methods are all, by interface and name. No name is in two interfaces, as a caller may leave the interface out.
var methods = map[string]map[string]method{
	Interface: {
		"Refresh":          {work: steering(ActionRefresh, refresh)},
		"SetDnsOverride":   {takes: "asb", check: (*request).checkOverride, work: steering(ActionOverride, setOverride)},
		"ClearDnsOverride": {work: steering(ActionOverride, clearOverride)},
		"ListRoutes":       {work: listRoutes, reads: true},
		"GetStatistics":    {work: getStatistics, reads: true},
	},
	properties: {
		"Get":    {takes: "ss", answer: getProperty},
		"GetAll": {takes: "s", answer: getAllProperties},
		"Set":    {takes: "ssv", answer: setProperty},
	},
	introspectable: {"Introspect": {answer: introspect}},
	peer:           {"Ping": {answer: nothing}, "GetMachineId": {answer: machineID}},
}

// request is a call that is being answered.
type request struct {
	*systembus.Call
	bus        *systembus.Service
	servers    []netip.Addr // of SetDnsOverride
	persistent bool
}

// take answers a call, or has it worked on. It runs where the connection is read: whatever waits is worked on elsewhere.
func (s *session) take(bus *systembus.Service, c *systembus.Call, tooLong bool) {
	r := &request{Call: c, bus: bus}
	m, err := find(c)
	switch {
	case tooLong:
		err = refusal(LimitsExceeded, "the call is longer than any that makes sense")
	case err == nil && c.Signature != m.takes:
		err = refusal(busInvalidArgs, "%s takes arguments of type %q, not %q", c.Member, m.takes, c.Signature)
	case err == nil && m.check != nil:
		err = m.check(r)
	}
	if err == nil && m.work != nil {
		if s.begin(m, r) {
			return
		}
		err = refusal(LimitsExceeded, "too many calls are waiting for an answer; ask again when they have theirs")
	}
	var result systembus.Body
	if err == nil {
		result, err = m.answer(s, r)
	}
	s.respond(r, result, err)
}

// begin works on a call beside the others, if there are not too many.
func (s *session) begin(m method, r *request) bool {
	places := &s.steerers
	if m.reads {
		places = &s.readers // readers take no place from who steers
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || !places.enter(r.Sender) {
		return false
	}
	s.works.Add(1)
	go func() {
		defer s.works.Done()
		defer places.leave(r.Sender)
		result, err := m.work(s.ctx, s, r)
		if s.ctx.Err() == nil { // else we are leaving, and the bus says so to whoever waits
			s.respond(r, result, err)
		}
	}()
	return true
}

// find looks the method up, D-Bus specification, "Standard Interfaces" and "Message Format".
func find(c *systembus.Call) (m method, err error) {
	child := childOf(c.Path)
	switch {
	case c.Path == string(Path), c.Interface == peer:
	case child == "":
		return m, refusal(busUnknownObject, "no object %s here: it is %s", quote(c.Path), Path)
	case c.Interface != introspectable && (c.Interface != "" || c.Member != "Introspect"):
		return m, refusal(busUnknownInterface, "no interface %s at %s: the object is %s", quote(c.Interface), c.Path, Path)
	}
	if c.Interface == "" {
		for _, in := range methods {
			if m, is := in[c.Member]; is {
				return m, nil
			}
		}
	}
	in, is := methods[c.Interface]
	if !is && c.Interface != "" {
		return m, refusal(busUnknownInterface, "no interface %s at %s", quote(c.Interface), Path)
	}
	if m, is = in[c.Member]; !is {
		return m, refusal(busUnknownMethod, "no method %s at %s", quote(c.Member), Path)
	}
	return m, nil
}

// childOf gives the next name on the way from a path to our object; "" if it is not on the way.
func childOf(path string) string {
	rest, is := strings.CutPrefix(string(Path), strings.TrimSuffix(path, "/")+"/")
	if !is {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// respond sends what came out.
func (s *session) respond(r *request, result systembus.Body, err error) {
	var failed error
	if err == nil {
		failed = r.bus.Answer(r.Call, result)
	} else {
		e := describe(err)
		if e.Name == LimitsExceeded {
			s.floods.refuse(r.Sender, e.Sentence)
		}
		failed = r.bus.Refuse(r.Call, e.Name, e.Sentence)
	}
	if failed != nil { // the connection is broken, and its end is noticed elsewhere
		s.log.Debug("a caller has no answer", "err", failed)
	}
}

// describe gives an error its name in the contract.
func describe(err error) Error {
	var e Error
	var invalid netvm.InvalidError
	switch {
	case errors.As(err, &e):
	case errors.As(err, &invalid):
		e.Name = InvalidArguments
	case errors.Is(err, netvm.ErrTooMany):
		e.Name = LimitsExceeded
	case errors.Is(err, context.DeadlineExceeded):
		e.Name = Timeout
	default:
		e.Name = Failed
	}
	e.Sentence = sentence(err.Error())
	return e
}

func nothing(*session, *request) (systembus.Body, error) { return systembus.Body{}, nil }

func introspect(_ *session, r *request) (systembus.Body, error) {
	if r.Path == string(Path) {
		return systembus.Encode(Contract)
	}
	return systembus.Encode(fmt.Sprintf("<node>\n  <node name=%q/>\n</node>\n", childOf(r.Path)))
}

// machineIDFile is read for Peer.GetMachineId, machine-id(5).
const machineIDFile = "/etc/machine-id"

func machineID(*session, *request) (systembus.Body, error) {
	id, err := os.ReadFile(machineIDFile)
	if err != nil {
		return systembus.Body{}, fmt.Errorf("this machine's ID: %w", err)
	}
	return systembus.Encode(text(strings.TrimSpace(string(id))))
}

// ours refuses an interface without properties; "" is any (D-Bus specification, "org.freedesktop.DBus.Properties").
func ours(iface string) error {
	if iface != Interface && iface != "" {
		return refusal(busUnknownInterface, "no properties of %s at %s", quote(iface), Path)
	}
	return nil
}

func getProperty(s *session, r *request) (systembus.Body, error) {
	iface, name := r.Args.Text(), r.Args.Text()
	if err := ours(iface); err != nil {
		return systembus.Body{}, err
	}
	return s.shown.Load().property(name)
}

func getAllProperties(s *session, r *request) (systembus.Body, error) {
	if err := ours(r.Args.Text()); err != nil {
		return systembus.Body{}, err
	}
	return s.shown.Load().all()
}

func listRoutes(ctx context.Context, s *session, _ *request) (systembus.Body, error) {
	return s.routes.get(ctx)
}

func getStatistics(ctx context.Context, s *session, _ *request) (systembus.Body, error) {
	return s.statistics.get(ctx)
}

// setProperty refuses: all are read-only. The value is not looked at.
func setProperty(s *session, r *request) (systembus.Body, error) {
	iface, name := r.Args.Text(), r.Args.Text()
	if err := ours(iface); err != nil {
		return systembus.Body{}, err
	}
	if _, err := s.shown.Load().property(name); err != nil {
		return systembus.Body{}, err
	}
	return systembus.Body{}, refusal(busPropertyReadOnly, "%s of %s is read-only", name, Interface)
}

// steering makes a method's work of something that needs a right: the caller is answered when what came of it can be read.
func steering(action string, steer func(context.Context, *session, *request, caller) (systembus.Body, error)) work {
	return func(ctx context.Context, s *session, r *request) (systembus.Body, error) {
		who, err := s.authorize(ctx, r, action)
		if err != nil {
			return systembus.Body{}, err
		}
		limited, cancel := context.WithTimeout(ctx, workDeadline)
		defer cancel()
		result, err := steer(limited, s, r, who)
		s.catchUp()
		return result, err
	}
}

func refresh(ctx context.Context, s *session, _ *request, _ caller) (systembus.Body, error) {
	changed, err := s.daemon.Refresh(ctx)
	if err != nil {
		return systembus.Body{}, err
	}
	return systembus.Encode(changed)
}

// checkOverride is what can be said without the daemon, so that nobody is asked for a password for nonsense.
func (r *request) checkOverride() error {
	servers := r.Args.Texts(maxServers)
	r.persistent = r.Args.Bool()
	switch {
	case r.Args.Bad():
		return refusal(InvalidArguments, "more than %d servers", maxServers)
	case len(servers) == 0:
		return refusal(InvalidArguments, "no server is named: to end an override, call ClearDnsOverride")
	}
	var err error
	r.servers, err = parseEach(servers, func(text string) (netip.Addr, error) {
		a, err := netip.ParseAddr(text)
		if err != nil {
			err = refusal(InvalidArguments, "server %s is no IP address", quote(text))
		}
		return a, err
	})
	return err
}

func setOverride(ctx context.Context, s *session, r *request, who caller) (systembus.Body, error) {
	o := netvm.Override{Servers: r.servers, Persistent: r.persistent, By: who.String()}
	return systembus.Body{}, s.callers.set(ctx, r.Sender, o)
}

func clearOverride(ctx context.Context, s *session, r *request, _ caller) (systembus.Body, error) {
	return systembus.Body{}, s.callers.clear(ctx, r.Sender)
}

// interactive tells whether the caller is prepared to wait for a person.
func (r *request) interactive() bool { return r.Flags&godbus.FlagAllowInteractiveAuthorization != 0 }

// quote makes a text from outside fit for a sentence.
func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(s[:maxQuoted]) + "…"
	}
	return strconv.Quote(s)
}
