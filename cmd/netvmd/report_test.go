package main

import (
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"netvmd/internal/lab"
)

// A report of a whole netvm has all that is known of it, and with --redact nothing that tells where it is.
func TestAReportHasAllAndARedactedOneTellsNotWhere(t *testing.T) {
	s := open(t, lab.Options{})
	s.start()
	s.nmcli("connection", "modify", "home", "connection.id", "Hotel California")
	s.nmcli("connection", "up", "Hotel California")
	s.leads(s.Home.Resolvers[0], s.Home.Resolvers[1])
	s.state("online")
	s.vifsAre(s.Work.Vif, s.Personal.Vif)
	private := []string{`192\.0\.2\.`, `(?i)52:54:00`, `(?i)00:16:3e`, `Hotel California`}
	kept := []string{`(?m)^netvmd +devel$`, `(?m)^NetworkManager +1\.\d+`, `(?m)^kernel +Linux `, `10\.139\.1\.1`, s.Work.Vif,
		`(?m)^10\.137\.0\.11 .*255\.255\.255\.255 +UH`, `(?m)^== Doctor ==$`, `MAY SEND FROM`}
	for _, tc := range []struct {
		args       []string
		has, lacks []string
	}{
		{[]string{"report"}, append(append([]string{}, kept...), private[0], private[2], private[3]), nil},
		{[]string{"report", "--redact"}, append([]string{`<address-1>`, `<mac-1>`, `"<network-1>"`}, kept...), private},
		{[]string{"report", "--redact", "--json"}, []string{`"sections"`, `<address-1>`}, private},
	} {
		out, code := s.ctl(lab.RootUser, append(tc.args, "--config", s.NetVM.NetvmdConfig())...)
		if code != 0 {
			t.Errorf("%q: exit code %d", tc.args, code)
		}
		for _, pattern := range tc.has {
			if !regexp.MustCompile(pattern).MatchString(out) {
				t.Errorf("%q prints nothing like %q:\n%s", tc.args, pattern, out)
			}
		}
		for _, pattern := range tc.lacks {
			if found := regexp.MustCompile(pattern).FindString(out); found != "" {
				t.Errorf("%q still has %q:\n%s", tc.args, found, out)
			}
		}
	}
}

// A netvmd that hangs costs a report its deadline, and the parts that only netvmd has.
func TestAReportOfAHangingNetvmComesInTime(t *testing.T) {
	const inTime = 25 * time.Second // 20 s, and a busy machine
	s := open(t, lab.Options{})
	s.start()
	s.await(none, none) // it has its name
	s.must(s.NetVM.Netvmd().Signal(syscall.SIGSTOP))
	began := time.Now()
	out, code := s.ctl(lab.RootUser, "report", "--config", s.NetVM.NetvmdConfig())
	took := time.Since(began)
	s.must(s.NetVM.Netvmd().Signal(syscall.SIGCONT))
	t.Logf("it took %s", took)
	if code != 0 || took > inTime {
		t.Errorf("exit code %d after %s", code, took)
	}
	for _, words := range []string{"== Status ==\nnot to be had: ", "no answer in time", "Kernel IP routing table", "MAY SEND FROM", "== Doctor ==\n✓"} {
		if !strings.Contains(out, words) {
			t.Errorf("it has no %q:\n%s", words, out)
		}
	}
}
