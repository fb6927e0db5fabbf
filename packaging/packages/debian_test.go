//go:build packages

package packages

import (
	"context"
	"strings"
	"testing"

	"netvmd/internal/lab"
	"netvmd/internal/lab/container"
)

// debian is a Debian as it comes out of its own packages, which is booted to become a domain of a lab, and the part of the
// story that is told of it just now.
type debian struct {
	t       *testing.T
	ctx     context.Context
	system  lab.System
	machine *container.Machine // that is booted
}

func newDebian(t *testing.T) debian {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	system, err := lab.NewSystem(strings.ReplaceAll(t.Name(), "/", "-"), rootFolder)
	if err != nil {
		t.Fatal(err)
	}
	return debian{t: t, ctx: ctx, system: system}
}

// step is a part of the story that begins where the one before ended: without that one there is nothing to begin with.
func (d *debian) step(name string, f func(debian)) {
	d.t.Helper()
	ok := d.t.Run(name, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(d.ctx, stepPatience)
		defer cancel()
		f(debian{t, ctx, d.system, d.machine})
	})
	if !ok {
		d.t.FailNow()
	}
}

func (d *debian) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// sh runs a line of shell in the netvm, wants it to succeed and returns what it printed.
func (d *debian) sh(line string) string {
	d.t.Helper()
	out, err := d.machine.Run(d.ctx, "sh", "-c", line)
	d.must(err)
	return strings.TrimSpace(out)
}

// says runs a line of shell in the netvm, whatever its exit code, and wants it to print this.
func (d *debian) says(line, want string) {
	d.t.Helper()
	out, err := d.machine.Run(d.ctx, "sh", "-c", line)
	if got := strings.TrimSpace(out); got != want {
		d.t.Errorf("%s: %q (%v), want %q", line, got, err, want)
	}
}

// has wants a text, named for the message, to contain these words.
func (d *debian) has(what, text string, words ...string) {
	d.t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			d.t.Errorf("%s lacks %q:\n%s", what, w, text)
		}
	}
}

// apt runs apt-get as an admin's script does, and returns what it printed.
func (d *debian) apt(args string) string {
	d.t.Helper()
	return d.sh("DEBIAN_FRONTEND=noninteractive apt-get -qqy -o Dpkg::Use-Pty=0 " + args)
}

// kernel is all that it has in the kernel, but for what changes by itself, as a link's own address does when it has
// been found to be nobody else's (RFC 4862).
func (d *debian) kernel() string {
	d.t.Helper()
	return d.sh("nft -s list ruleset; ip -d link; ip -4 route show table all; ip -6 route show table all | sed 's/ expires.*//; /^local fe80:/d'; ip rule; " +
		"ip neigh show nud permanent; grep -rs . /proc/sys/net | grep -vE 'nf_conntrack_count|/(dentry|stable_secret|route/flush)|random' | sort")
}
