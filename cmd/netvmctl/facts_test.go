package main

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestAFactThatDoesNotComeIsOneThatSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	hangs := find(ctx, func(context.Context) (int, error) { select {} })
	comes := find(ctx, func(context.Context) (int, error) { return 7, nil })
	fails := find(ctx, func(context.Context) (int, error) { return 0, errors.New("it broke") })
	if f := comes(); f.value != 7 || f.err != nil {
		t.Errorf("%+v", f)
	}
	if f := fails(); f.err == nil || f.err.Error() != "it broke" {
		t.Errorf("%+v", f)
	}
	cancel()
	if f := hangs(); f.err == nil || !strings.Contains(f.err.Error(), "no answer in time") {
		t.Errorf("%+v", f)
	}
}

func TestTheSystemsNameIsThatOfOSRelease(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"in quotation marks", "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n", "Debian GNU/Linux 12 (bookworm)"},
		{"in single ones", "PRETTY_NAME='Fedora Linux 41'", "Fedora Linux 41"},
		{"bare", "  PRETTY_NAME=Alpine\nNAME=x", "Alpine"},
		{"missing", "NAME=x\n#PRETTY_NAME=y\n", "linux"},
	} {
		if got := prettyName(tc.text); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func FuzzPrettyName(f *testing.F) {
	f.Add("PRETTY_NAME=\"x\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		if got := prettyName(text); strings.Contains(got, "\n") {
			t.Errorf("%q is more than one line", got)
		}
	})
}
