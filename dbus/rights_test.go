package dbus

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/systembus"
)

var wanted = []netip.Addr{netip.MustParseAddr("192.0.2.99")}

// question is what polkit was asked.
type question struct {
	subject, action string
	flags           uint32
	id              string
}

// fakePolkit owns polkit's name, and answers as the test says.
type fakePolkit struct {
	questions chan question
	cancelled chan string

	answers chan answer // one for each question; none = it is still being thought about
}

type answer struct {
	authorized, challenge bool
	err                   *godbus.Error
}

func newPolkit(t *testing.T) *fakePolkit {
	t.Helper()
	p := &fakePolkit{make(chan question, 1000), make(chan string, 1000), make(chan answer, 1000)}
	conn := as(t, 0).conn
	err := conn.ExportMethodTable(map[string]any{"CheckAuthorization": p.check, "CancelCheckAuthorization": p.cancel},
		polkitPath, polkitInterface)
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName(polkitName, godbus.NameFlagDoNotQueue); err != nil || reply != godbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("own polkit's name: %v %v", reply, err)
	}
	t.Cleanup(func() { close(p.answers) })
	return p
}

type polkitSubject struct {
	Kind    string
	Details map[string]godbus.Variant
}

type polkitResult struct {
	Authorized, Challenge bool
	Details               map[string]string
}

func (p *fakePolkit) check(s polkitSubject, action string, _ map[string]string, flags uint32, id string) (polkitResult, *godbus.Error) {
	name, _ := s.Details["name"].Value().(string)
	p.questions <- question{s.Kind + " " + name, action, flags, id}
	a := <-p.answers
	return polkitResult{a.authorized, a.challenge, map[string]string{}}, a.err
}

func (p *fakePolkit) cancel(id string) *godbus.Error {
	p.cancelled <- id
	return nil
}

// uniqueName is a client's own.
func uniqueName(c *Client) string { return c.conn.Names()[0] }

// privilege is a call that needs a right.
type privilege struct {
	what, action string
	call         func() error
}

func privileged(ctx context.Context, c *Client) []privilege {
	return []privilege{
		{"refresh", ActionRefresh, func() error { _, err := c.Refresh(ctx); return err }},
		{"set", ActionOverride, func() error { return c.SetDNSOverride(ctx, wanted, false) }},
		{"clear", ActionOverride, func() error { return c.ClearDNSOverride(ctx) }},
	}
}

func TestWithoutPolkitOnlyRootMaySteer(t *testing.T) {
	s := newScene(t)
	for _, p := range privileged(s.ctx, client(t)) {
		if err := p.call(); err != nil {
			t.Errorf("root, %s: %v", p.what, err)
		}
	}
	stranger := as(t, nobody)
	for _, p := range privileged(s.ctx, stranger) {
		if err := p.call(); !errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), "polkit, which could allow it to others, is not running") {
			t.Errorf("nobody, %s: %v", p.what, err)
		}
	}
	if _, err := stranger.Status(s.ctx); err != nil {
		t.Errorf("nobody may not read: %v", err)
	}
	if _, _, err := stranger.Statistics(s.ctx); err != nil {
		t.Errorf("nobody may not read statistics: %v", err)
	}
}

func TestPolkitDecidesForTheOthers(t *testing.T) {
	for _, tc := range []struct {
		what   string
		answer answer
		want   string
	}{
		{"yes", answer{authorized: true}, ""},
		{"no", answer{}, "neither root nor allowed by polkit's " + Interface},
		{"the password was wrong", answer{challenge: true}, "neither root nor allowed by polkit's " + Interface},
		{"it fails", answer{err: godbus.MakeFailedError(errors.New("out of order"))}, "failed: out of order"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s := newScene(t)
			polkit, stranger := newPolkit(t), as(t, nobody)
			for _, p := range privileged(s.ctx, stranger) {
				polkit.answers <- tc.answer
				err := p.call()
				if tc.want == "" && err != nil || tc.want != "" && (!errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), tc.want)) {
					t.Errorf("%s: got %v, want %q", p.what, err, tc.want)
				}
				q := <-polkit.questions
				q.id = ""
				if want := (question{"system-bus-name " + uniqueName(stranger), p.action, allowUserInteraction, ""}); q != want {
					t.Errorf("%s: polkit was asked %+v, not %+v", p.what, q, want)
				}
			}
			if holds := len(s.daemon.Holders()) > 0; holds {
				t.Error("the override was not cleared, or set by somebody who may not")
			}
		})
	}
}

func TestPolkitAsksForNoPasswordUnlessTheCallerAllowsIt(t *testing.T) {
	s := newScene(t)
	polkit, stranger := newPolkit(t), as(t, nobody)
	polkit.answers <- answer{challenge: true}
	err := understand("", stranger.conn.Object(Name, Path).CallWithContext(s.ctx, Interface+".Refresh", 0).Err)
	if q := <-polkit.questions; q.flags != 0 || !errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), "the call does not allow to ask for one") {
		t.Errorf("flags %d, %v", q.flags, err)
	}
}

func TestRootIsNotAPolkitQuestionAndNonsenseIsNone(t *testing.T) {
	s := newScene(t)
	polkit := newPolkit(t)
	if err := client(t).SetDNSOverride(s.ctx, wanted, true); err != nil {
		t.Error(err)
	}
	err := as(t, nobody).SetDNSOverride(s.ctx, nil, true)
	if e := (Error{}); !errors.As(err, &e) || e.Name != InvalidArguments {
		t.Errorf("got %v", err)
	}
	if len(polkit.questions) > 0 {
		t.Errorf("polkit was asked %+v", <-polkit.questions)
	}
}

func TestACallerThatLeavesTakesItsQuestionBack(t *testing.T) {
	s := newScene(t)
	polkit, stranger := newPolkit(t), as(t, nobody)
	go func() { _ = stranger.SetDNSOverride(s.ctx, wanted, false) }() // its connection is closed
	asked := <-polkit.questions
	if err := stranger.Close(); err != nil {
		t.Fatal(err)
	}
	if id := await(t, polkit.cancelled, "the cancellation", func(string) bool { return true }); id != asked.id {
		t.Errorf("%q was cancelled, not %q", id, asked.id)
	}
	polkit.answers <- answer{authorized: true}
	if err := client(t).SetDNSOverride(s.ctx, wanted, false); err != nil {
		t.Fatal(err)
	}
	if first := s.daemon.until(t, "setting"); strings.Contains(first, uniqueName(stranger)) {
		t.Error("polkit's yes to a caller that left was taken")
	}
}

func TestAQuestionThatNobodyAnswersIsTakenBack(t *testing.T) {
	s := newScene(t)
	polkit, conn := newPolkit(t), client(t).conn
	ctx, expire := context.WithCancelCause(s.ctx)
	defer expire(nil)
	r := &request{Call: &systembus.Call{Sender: ":1.42", Flags: godbus.FlagAllowInteractiveAuthorization}}
	failed := make(chan error, 1)
	go func() { failed <- askPolkit(ctx, conn, r, ActionRefresh) }()
	asked := await(t, polkit.questions, "the question", func(question) bool { return true })
	expire(refusal(Timeout, "nobody answered"))
	if e := (Error{}); !errors.As(<-failed, &e) || e.Name != Timeout {
		t.Errorf("got %v", e)
	}
	if id := await(t, polkit.cancelled, "the cancellation", func(string) bool { return true }); id != asked.id {
		t.Errorf("%q was cancelled, not %q", id, asked.id)
	}
}

func TestTheSayingOfWhoSetAnOverrideIsForPeople(t *testing.T) {
	s := newScene(t)
	self, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	if err := client(t).SetDNSOverride(s.ctx, wanted, true); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("[192.0.2.99] true by %s (pid %d, user 0)", strings.TrimSpace(string(self)), os.Getpid())
	if got := s.daemon.until(t, "set "); !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, tc := range []struct {
		caller caller
		want   string
	}{
		{caller{uid: 1000}, "user 1000"},
		{caller{uid: 1000, pid: 1<<31 - 1}, "a process that has ended (pid 2147483647, user 1000)"},
	} {
		if got := tc.caller.String(); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}
