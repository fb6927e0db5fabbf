package netvm

import (
	"strings"
	"testing"
)

func TestAPortalsAddressIsOneThatABrowserMayBeSentTo(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		wrong      string // "" = it is right
	}{
		{"http", "http://nmcheck.gnome.org/check_network_status.txt", ""},
		{"https with a port and a query", "https://example.org:8443/a?b=c#d", ""},
		{"an IPv6 address", "http://[2001:db8::1]/", ""},
		{"capital letters", "HTTP://EXAMPLE.ORG", ""},
		{"2048 bytes", "http://example.org/" + strings.Repeat("a", 2048-19), ""},
		{"2049 bytes", "http://example.org/" + strings.Repeat("a", 2049-19), "longer than 2048"},
		{"nothing", "", "neither http"},
		{"a path alone", "/check", "neither http"},
		{"no scheme", "//example.org/", "neither http"},
		{"a file", "file:///etc/shadow", "neither http"},
		{"a script", "javascript:alert(1)", "neither http"},
		{"a flag of the program that opens it", "--help", "neither http"},
		{"no host", "http:///check", "no host"},
		{"a port alone", "http://:80/", "no host"},
		{"opaque", "http:example.org", "no host"},
		{"a user", "http://gateway@example.org/", "user name"},
		{"an empty user", "http://@example.org/", "user name"},
		{"a bad escape", "http://example.org/%zz", "no URL"},
		{"a bad port", "http://example.org:http/", "no URL"},
		{"a blank", "http://example.org/a b", "printable"},
		{"a line end", "http://example.org/\n", "printable"},
		{"an escape sequence", "http://example.org/\x1b[2J", "printable"},
		{"letters beyond ASCII", "http://exämple.org/", "printable"},
		{"bytes that are no UTF-8", "http://example.org/\xff", "printable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParsePortalURL(tc.text)
			switch {
			case tc.wrong == "" && (err != nil || got != tc.text):
				t.Errorf("%q, %v", got, err)
			case tc.wrong != "" && (err == nil || got != "" || !strings.Contains(err.Error(), tc.wrong)):
				t.Errorf("%q, %v; want an error with %q", got, err, tc.wrong)
			}
		})
	}
}

func FuzzParsePortalURL(f *testing.F) {
	for _, text := range []string{"http://example.org/", "https://[::1]:1/?a=b#c", "http://a@b", "javascript:x", "http:///", "\x00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParsePortalURL(text)
		if err != nil {
			if got != "" {
				t.Errorf("%q comes with an error", got)
			}
			return
		}
		lower := strings.ToLower(got)
		if got != text || !strings.HasPrefix(lower, "http://") && !strings.HasPrefix(lower, "https://") || strings.ContainsAny(got, " \n\r\x00\x1b") {
			t.Errorf("%q became %q", text, got)
		}
	})
}
