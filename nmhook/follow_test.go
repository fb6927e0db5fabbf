package nmhook

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

// watchNoBus watches a file where there is no bus at all.
func watchNoBus(t *testing.T, path string) *watching {
	t.Helper()
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "no-bus"))
	return watchFile(t, path)
}

func resolvConfIs(servers ...string) func(netvm.View) bool {
	return func(v netvm.View) bool {
		var got []string
		for _, s := range v.ResolvConf.Servers {
			got = append(got, s.String())
		}
		return strings.Join(got, " ") == strings.Join(servers, " ")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// replace puts another file under the name, as resolvconf(8) and NetworkManager do.
func replace(t *testing.T, path, content string) {
	t.Helper()
	writeFile(t, path+".new", content)
	must(t, os.Rename(path+".new", path))
}

func TestResolvConfIsFollowedWhateverHappensToIt(t *testing.T) {
	one, two := "nameserver 192.0.2.1\n", "nameserver 192.0.2.2\n"
	tests := map[string]struct {
		prepare func(t *testing.T, folder string) // path is folder/etc/resolv.conf
		happens func(t *testing.T, folder string)
		want    []string
		absent  bool
	}{
		"written in place": {
			happens: func(t *testing.T, folder string) { writeFile(t, folder+"/etc/resolv.conf", two) }, want: []string{"192.0.2.2"}},
		"replaced by rename": {
			happens: func(t *testing.T, folder string) { replace(t, folder+"/etc/resolv.conf", two) }, want: []string{"192.0.2.2"}},
		"deleted": {
			happens: func(t *testing.T, folder string) { must(t, os.Remove(folder+"/etc/resolv.conf")) }, absent: true},
		"turned into a symlink": {
			happens: func(t *testing.T, folder string) {
				writeFile(t, folder+"/run/vpn", two)
				must(t, os.Symlink("../run/vpn", folder+"/etc/resolv.conf.new"))
				must(t, os.Rename(folder+"/etc/resolv.conf.new", folder+"/etc/resolv.conf"))
			}, want: []string{"192.0.2.2"}},
		"a symlink's target is replaced": {
			prepare: func(t *testing.T, folder string) { linkTo(t, folder, "../run/stub", one) },
			happens: func(t *testing.T, folder string) { replace(t, folder+"/run/stub", two) }, want: []string{"192.0.2.2"}},
		"a symlink's target is written in place": {
			prepare: func(t *testing.T, folder string) { linkTo(t, folder, "../run/stub", one) },
			happens: func(t *testing.T, folder string) { writeFile(t, folder+"/run/stub", two) }, want: []string{"192.0.2.2"}},
		"a symlink's target is deleted": {
			prepare: func(t *testing.T, folder string) { linkTo(t, folder, "../run/stub", one) },
			happens: func(t *testing.T, folder string) { must(t, os.Remove(folder+"/run/stub")) }, absent: true},
		"a link in the middle of a chain is switched": {
			prepare: func(t *testing.T, folder string) {
				linkTo(t, folder, "../run/middle", "")
				writeFile(t, folder+"/one", one)
				writeFile(t, folder+"/two", two)
				must(t, os.Remove(folder+"/run/middle"))
				must(t, os.Symlink("../one", folder+"/run/middle"))
			},
			happens: func(t *testing.T, folder string) {
				must(t, os.Symlink("../two", folder+"/run/new"))
				must(t, os.Rename(folder+"/run/new", folder+"/run/middle"))
			}, want: []string{"192.0.2.2"}},
		"a dangling link's folder and file come": {
			prepare: func(t *testing.T, folder string) {
				must(t, os.Remove(folder+"/etc/resolv.conf"))
				must(t, os.Symlink("../run/late/deep/file", folder+"/etc/resolv.conf"))
			},
			happens: func(t *testing.T, folder string) {
				must(t, os.MkdirAll(folder+"/run/late/deep", 0o755))
				writeFile(t, folder+"/run/late/deep/file", two)
			}, want: []string{"192.0.2.2"}},
		"a hard link is made": {
			prepare: func(t *testing.T, folder string) {
				writeFile(t, folder+"/run/two", two)
				must(t, os.Remove(folder+"/etc/resolv.conf"))
			},
			happens: func(t *testing.T, folder string) {
				must(t, os.Link(folder+"/run/two", folder+"/etc/resolv.conf"))
			}, want: []string{"192.0.2.2"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			must(t, os.Mkdir(folder+"/etc", 0o755))
			must(t, os.Mkdir(folder+"/run", 0o755))
			writeFile(t, folder+"/etc/resolv.conf", one)
			if test.prepare != nil {
				test.prepare(t, folder)
			}
			w := watchNoBus(t, folder+"/etc/resolv.conf")
			w.next("the first")
			if test.absent && !resolvConfIs("192.0.2.1")(w.view) {
				t.Fatalf("begins with %+v", w.view.ResolvConf)
			}
			test.happens(t, folder)
			v := w.until(name, func(v netvm.View) bool {
				return resolvConfIs(test.want...)(v) && (v.ResolvConf.Owner == netvm.ResolvConfAbsent) == test.absent
			})
			if v.Arrived.IsZero() || v.Signals == 0 {
				t.Errorf("Arrived %v, Signals %d", v.Arrived, v.Signals)
			}
		})
	}
}

// linkTo makes etc/resolv.conf a symlink to a file with the content.
func linkTo(t *testing.T, folder, to, content string) {
	t.Helper()
	must(t, os.Remove(folder+"/etc/resolv.conf"))
	must(t, os.Symlink(to, folder+"/etc/resolv.conf"))
	writeFile(t, filepath.Join(folder, "etc", to), content)
}

func TestADeletedResolvConfIsFollowedWhenItReturns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	writeFile(t, path, "nameserver 192.0.2.1\n")
	w := watchNoBus(t, path)
	w.until("there", resolvConfIs("192.0.2.1"))
	for _, server := range []string{"192.0.2.2", "192.0.2.3", "192.0.2.4"} {
		must(t, os.Remove(path))
		w.until("gone", func(v netvm.View) bool { return v.ResolvConf.Owner == netvm.ResolvConfAbsent })
		writeFile(t, path, "nameserver "+server+"\n")
		w.until("back", resolvConfIs(server))
	}
}

func TestABadResolvConfKeepsTheLastGoodOneAndSaysSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	tests := map[string]struct {
		happens func(t *testing.T)
		fault   string
	}{
		"a line names no address": {func(t *testing.T) { replace(t, path, "nameserver 192.0.2.9\nnameserver banana\n") },
			path + `:2: "nameserver banana" names no address`},
		"it is too large": {func(t *testing.T) { replace(t, path, strings.Repeat("#", maxResolvConf+1)) }, "is larger than 65536 bytes"},
		"it is a folder": {func(t *testing.T) {
			must(t, os.Remove(path))
			must(t, os.Mkdir(path, 0o755))
		}, "is not a regular file"},
		"it is a FIFO that nobody writes": {func(t *testing.T) {
			must(t, unix.Mkfifo(path+".new", 0o644))
			must(t, os.Rename(path+".new", path))
		}, "is not a regular file"},
		"it is a link to itself": {func(t *testing.T) {
			must(t, os.Symlink("resolv.conf", path+".new"))
			must(t, os.Rename(path+".new", path))
		}, "too many levels of symbolic links"},
	}
	writeFile(t, path, "nameserver 192.0.2.1\n")
	w := watchNoBus(t, path)
	w.until("there", resolvConfIs("192.0.2.1"))
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w.t = t
			test.happens(t)
			if v := w.until(name, hasFault(test.fault)); !resolvConfIs("192.0.2.1")(v) && v.ResolvConf.Owner != netvm.ResolvConfAbsent {
				t.Errorf("the last good value is gone: %+v", v.ResolvConf)
			}
			must(t, os.RemoveAll(path))
			replace(t, path, "nameserver 192.0.2.1\n")
			w.until("mended", func(v netvm.View) bool { return resolvConfIs("192.0.2.1")(v) && !faultWith(v, test.fault) })
		})
	}
}
