//go:build packages

package packages

import (
	"regexp"
	"strings"
	"testing"
)

// What a distribution's own checker finds is mended, or is explained in an override with its reason.
func TestLintianFindsNothing(t *testing.T) {
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			a := find(t, built(t, newer), name, "deb")
			said := lines(output(t, "lintian", "--allow-root", "--fail-on=none", "--no-tag-display-limit", "--display-info", a.file))
			for _, line := range said {
				switch {
				case strings.HasPrefix(line, "E:"), strings.HasPrefix(line, "W:"):
					t.Error(line)
				case regexp.MustCompile(`(unused|mismatched)-override`).MatchString(line):
					t.Errorf("an override of nothing: %s", line)
				default:
					t.Log(line)
				}
			}
		})
	}
}
