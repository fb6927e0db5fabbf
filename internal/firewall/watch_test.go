package firewall

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"netvmd/internal/netvm"
)

// A check that caused the hint that causes the next check would be polling.
func TestLookingCausesNoHint(t *testing.T) {
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Setenv(xtablesLockEnv, filepath.Join(t.TempDir(), "xtables.lock")) // nobody else's iptables
			ctx := testContext(t)
			n := newTopology(t)
			b, err := open(ctx, Options{Log: testLog(t)})
			must(t, err)
			n.admit(ctx, b)
			targets := []netvm.Target{to(virtual1, resolverA)}
			apply(t, ctx, b, targets...)
			hints := n.watch(ctx, b)
			settled(t, ctx, b, targets...)
			settled(t, ctx, b, targets...)
			if len(hints) != 0 {
				t.Errorf("%d hints after looking", len(hints))
			}
			n.nft("add table ip of-no-concern\n")
			apply(t, ctx, b, to(virtual1, resolverB))
			n.hint(hints)
		})
	}
}

func TestALockThatIsReplacedIsWatchedOn(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "xtables.lock")
	ctx, cancel := context.WithCancel(testContext(t))
	hints, ended := make(chan struct{}, 64), make(chan error, 1)
	go func() { ended <- watchFile(ctx, lock, func() { hints <- struct{}{} }) }()
	<-hints // the watch stands
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"released", func() error { return touch(lock) }},
		{"deleted", func() error { return os.Remove(lock) }},
		{"released after it was made anew", func() error { return touch(lock) }},
		{"moved away", func() error { return os.Rename(lock, lock+".old") }},
		{"released again", func() error { return touch(lock) }},
	} {
		must(t, step.do())
		select {
		case <-hints:
		case err := <-ended:
			t.Fatalf("%s: the watch ended: %v", step.name, err)
		case <-testContext(t).Done():
			t.Fatalf("%s: no hint", step.name)
		}
		for settled := false; !settled; {
			select {
			case <-hints:
			default:
				_, err := os.Stat(lock)
				settled = err == nil // the watch made it anew before it hinted
			}
		}
	}
	cancel()
	must(t, <-ended)
}

// touch opens and closes a file as iptables does with its lock.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func TestAReadOnlyLimitIsSaidOnceAndStopsNothing(t *testing.T) {
	ctx := testContext(t)
	n := newTopology(t)
	before := icmpLimits
	icmpLimits = []string{"/proc/sys/kernel/osrelease"} // the kernel lets nobody write it
	t.Cleanup(func() { icmpLimits = before })
	var lines bytes.Buffer
	b, err := newNFTables(ctx, Options{Log: slog.New(slog.NewTextHandler(&lines, nil))})
	must(t, err)
	n.admit(ctx, b)
	apply(t, ctx, b, to(virtual1, resolverA))
	apply(t, ctx, b, to(virtual1, resolverB))
	n.mustReach(virtual1, resolverB)
	settled(t, ctx, b, to(virtual1, resolverB))
	if warned := strings.Count(lines.String(), "level=WARN"); warned != 1 {
		t.Errorf("%d warnings, want one:\n%s", warned, lines.String())
	}
}

func TestNewTakesTheKindsThatThereAre(t *testing.T) {
	ctx := testContext(t)
	newTopology(t)
	for kind, want := range map[string]string{"": KindNFTables, KindAuto: KindNFTables, KindNFTables: KindNFTables, KindIPTables: KindIPTables} {
		b, err := New(ctx, Options{Kind: kind, Log: testLog(t)})
		must(t, err)
		if b.Name() != want {
			t.Errorf("%q gives %s, want %s", kind, b.Name(), want)
		}
	}
	if b, err := New(ctx, Options{Kind: "pf", Log: testLog(t)}); err == nil || b != nil {
		t.Errorf("pf gives %v and %v, want an error alone", b, err)
	}
}
