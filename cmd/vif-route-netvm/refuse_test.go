package main

import (
	"strings"

	"netvmd/internal/lab"
)

// mustRefuse runs online and wants it to fail: exit code 1, one line on standard error with these words, and the same
// words in the nodes that the toolstack reads.
func (s *scene) mustRefuse(c lab.Card, words string, environment ...string) {
	s.t.Helper()
	code, said := s.try(s.NetVM.HotplugCommand(s.ctx, "online", c), environment...)
	s.mustBeOneLine(code, said, words)
	status, failure := s.status(c)
	if status != "error" || !strings.Contains(failure, words) {
		s.t.Errorf("hotplug-status %q, hotplug-error %q; want error, and %q", status, failure, words)
	}
}

// mustBeOneLine wants exit code 1 and one line with these words.
func (s *scene) mustBeOneLine(code int, said, words string) {
	s.t.Helper()
	if code != 1 || strings.Count(said, "\n") != 1 || !strings.HasSuffix(said, "\n") || !strings.Contains(said, words) {
		s.t.Errorf("exit code %d, said %q; want 1, and one line with %q", code, said, words)
	}
}
