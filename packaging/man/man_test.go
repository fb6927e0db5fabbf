package main

import (
	"strings"
	"testing"
)

const interfaceXML = `<!-- All of it. --><node><interface name="org.qubes_os.NetVM1">
	<!-- Where
	     to, and why. --><property name="Source" type="s" access="read"/><property name="Reason" type="s" access="read"/>
	<!-- Does *it*, as ` + "`route -n`" + ` does. -->
	<method name="Do"><arg name="servers" type="as" direction="in"/><arg name="changed" type="b" direction="out"/></method>
	</interface><interface name="org.freedesktop.DBus.Properties"><property name="Other" type="s" access="read"/></interface></node>`

func TestWhatAPageShows(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func() (string, error)
		want string // or a part of the error, behind "error: "
	}{
		{"members with one comment are one entry, those of other interfaces none",
			func() (string, error) { return membersOf([]byte(interfaceXML), "property") },
			"**Source** s, **Reason** s\n: Where to, and why.\n\n"},
		{"a method has its arguments and results, and code in its comment",
			func() (string, error) { return membersOf([]byte(interfaceXML), "method") },
			"**Do**(as *servers*) → b *changed*\n: Does \\*it\\*, as `route -n` does.\n\n"},
		{"a member without a comment is an error",
			func() (string, error) {
				return membersOf([]byte(`<node><interface name="org.qubes_os.NetVM1"><signal name="Lone"/></interface></node>`), "signal")
			},
			"error: signal Lone has no comment"},
		{"a key has the meaning above it, and not the remark before",
			func() (string, error) {
				return keysOf("x.toml", "# A remark.\n\n# First\n# line.\n#a_key = \"v\"\n\n[table]\n# Other.\n#b = []\n")
			},
			"### At the beginning of the file\n**a\\_key** = `\"v\"`\n: First\nline.\n\n### \\[table\\]\n**b** = `[]`\n: Other.\n\n"},
		{"a key without a meaning is an error that names the line",
			func() (string, error) { return keysOf("x.toml", "# First.\n#a = 1\n#b = 2\n") },
			"error: x.toml:3: "},
		{"paragraphs of a help are prose, indented ones code",
			func() (string, error) { return prose("Give *it*.\n\n  netvmctl <x>\n\nDone.\n"), nil },
			"Give \\*it\\*.\n\n```\n  netvmctl <x>\n```\n\nDone.\n\n"},
		{"an option has its value, its meaning as a sentence, and its default",
			func() (string, error) {
				var b strings.Builder
				writeOptions(&b, []option{{Name: "file", Shorthand: "f", Value: "path", Usage: "where it is", Default: "/x"}})
				return b.String(), nil
			},
			"**-f**, **--file** *path*\n: Where it is. Default: /x.\n\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.make()
			if wrong, is := strings.CutPrefix(tc.want, "error: "); is {
				if err == nil || !strings.Contains(err.Error(), wrong) {
					t.Errorf("error %v, want one with %q", err, wrong)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Errorf("%v\n%q, want\n%q", err, got, tc.want)
			}
		})
	}
}
