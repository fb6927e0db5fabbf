package uplink

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folder is a resolv.conf with a place to keep it.
func folder(t *testing.T) (c ResolvConf, dir string) {
	t.Helper()
	dir = t.TempDir()
	return ResolvConf{filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "saved", "eth0.resolv.conf"), filepath.Join(dir, "protected")}, dir
}

func mustWrite(t *testing.T, c ResolvConf, resolvers []netip.Addr, changes int) {
	t.Helper()
	did, why, err := c.Write(resolvers)
	if err != nil || why != "" || len(did) != changes {
		t.Fatalf("Write: %q, %q, %v", did, why, err)
	}
}

func mustRestore(t *testing.T, c ResolvConf) {
	t.Helper()
	if _, err := c.Restore(); err != nil {
		t.Fatal(err)
	}
}

const listing = "set +e; ls -l --time-style=+ resolv.conf; cat resolv.conf 2>&1; find saved -type f -o -type l 2>/dev/null; true"

func TestResolvConfIsWrittenAndBecomesWhatItWas(t *testing.T) {
	for name, before := range map[string]string{
		"a file":                          "printf 'search example.org\\n# no end of line' >resolv.conf",
		"one of others with another mode": "echo x >resolv.conf && chmod 640 resolv.conf && chown 7:8 resolv.conf",
		"an empty file":                   ": >resolv.conf",
		"no file":                         ":",
		"a link":                          "echo x >target && ln -s target resolv.conf",
		"a link that leads nowhere":       "ln -s ../run/stub resolv.conf",
	} {
		t.Run(name, func(t *testing.T) {
			c, dir := folder(t)
			in := func(command string) string { return shell(t, "cd "+dir+"; "+command) }
			in(before)
			was := in(listing)
			mustWrite(t, c, addrs("10.139.1.1", "10.139.1.2"), 1)
			sameText(t, "resolv.conf", in("cat resolv.conf"), Header+"\nnameserver 10.139.1.1\nnameserver 10.139.1.2\n")
			mustWrite(t, c, addrs("10.139.1.1", "10.139.1.2"), 0)
			mustWrite(t, c, addrs("10.139.1.3"), 1)
			sameText(t, "resolv.conf", in("cat resolv.conf"), Header+"\nnameserver 10.139.1.3\n")
			mustRestore(t, c)
			sameText(t, "restored", in(listing), was)
			mustRestore(t, c)
			sameText(t, "restored again", in(listing), was)
		})
	}
}

func TestAProtectedFileIsLeftAlone(t *testing.T) {
	for name, tc := range map[string]struct{ protect, release, why string }{
		"listed":    {"mkdir protected && printf '/etc/hosts\\n  %s/resolv.conf\\n' $PWD >protected/10-mine", ":", "it is protected, by "},
		"mounted":   {"echo y >other && mount --bind other resolv.conf", "umount resolv.conf", "it is a mount of its own"},
		"immutable": {"chattr +i resolv.conf", "chattr -i resolv.conf", "it is immutable (chattr +i)"},
	} {
		t.Run(name, func(t *testing.T) {
			c, dir := folder(t)
			in := func(command string) string { return shell(t, "cd "+dir+"; "+command) }
			in("echo x >resolv.conf; " + tc.protect)
			t.Cleanup(func() { in(tc.release) })
			was := in(listing)
			did, why, err := c.Write(addrs("10.139.1.1"))
			if err != nil || len(did) > 0 || !strings.HasPrefix(why, tc.why) {
				t.Errorf("got %q, %q, %v", did, why, err)
			}
			mustRestore(t, c)
			sameText(t, "the file", in(listing), was)
		})
	}
}

func TestAFileThatAnotherProgramHasWrittenSinceStays(t *testing.T) {
	c, dir := folder(t)
	in := func(command string) string { return shell(t, "cd "+dir+"; "+command) }
	in("echo first >resolv.conf")
	mustWrite(t, c, addrs("10.139.1.1"), 1)
	in("echo second >resolv.conf")
	mustRestore(t, c)
	sameText(t, "resolv.conf", in("cat resolv.conf; find saved -type f 2>&1"), "second\n")
	mustWrite(t, c, addrs("10.139.1.1"), 1)
	in("echo third >resolv.conf")
	mustWrite(t, c, addrs("10.139.1.1"), 1)
	mustRestore(t, c)
	sameText(t, "resolv.conf", in("cat resolv.conf"), "third\n")
}

func TestWhatIsNoResolvConfIsLeftAlone(t *testing.T) {
	c, dir := folder(t)
	if err := os.Mkdir(c.Path, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Write(addrs("10.139.1.1")); err == nil || !strings.Contains(err.Error(), dir+"/resolv.conf is no file") {
		t.Errorf("got %v", err)
	}
}

func TestNoMoreNameserversThanTheCLibraryAsks(t *testing.T) {
	if text := string(compose(addrs("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"))); strings.Contains(text, "192.0.2.4") {
		t.Errorf("it has %q", text)
	}
}
