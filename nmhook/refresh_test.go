package nmhook

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func (w *watching) refresh(patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return w.Refresh(ctx)
}

func TestRefreshReturnsWhenWhatNoSignalAnnouncedCanBeTaken(t *testing.T) {
	startBus(t)
	f := nmFake(t)
	f.own()
	r := resolvedFake(t, resolvedEntry{0, 2, []byte{9, 9, 9, 9}})
	r.own()
	w := watch(t)
	w.next("the first")
	must(t, w.refresh(patience))
	w.quiet("reading the same")

	f.set(nmDNSPath, nmDNSInterface, "Configuration", dnsConfig("eth0", "192.0.2.2"))
	f.set(nmPath, nmName, "Connectivity", uint32(2))
	r.set(resolvedPath, resolvedIface, "DNS", []resolvedEntry{{0, 2, []byte{8, 8, 8, 8}}})
	must(t, w.refresh(patience))
	select {
	case <-w.Changed():
	default:
		t.Fatal("nothing to take")
	}
	v := w.Take()
	if !uplinkIs("192.0.2.2")(v) || v.State != "portal" || v.Resolved.Servers[0].Resolver.Addr.String() != "8.8.8.8" {
		t.Errorf("got %+v", v)
	}
	if v.Signals != 0 || !v.Arrived.IsZero() {
		t.Errorf("it answers signals: %d, %s", v.Signals, v.Arrived)
	}
	w.quiet("a second look")
}

func TestRefreshNamesTheSourceThatIsSilent(t *testing.T) {
	startBus(t)
	f := nmFake(t)
	f.own()
	r := resolvedFake(t)
	r.own()
	w := watch(t)
	w.next("the first")
	speak := f.hush()
	defer speak()
	err := w.refresh(100 * time.Millisecond)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer from NetworkManager (its DNS configuration), NetworkManager (its uplinks): ") ||
		strings.Contains(err.Error(), "resol") {
		t.Errorf("%v", err)
	}
	if v := w.Take(); !uplinkIs("192.0.2.1")(v) {
		t.Errorf("what it said last is gone: %+v", v)
	}
}

func TestRefreshSaysWhatASourceRefuses(t *testing.T) {
	startBus(t)
	r := resolvedFake(t, resolvedEntry{0, 2, []byte{9, 9, 9, 9}})
	r.own()
	w := watch(t)
	w.next("the first")
	r.set(resolvedPath, resolvedIface, "DNS", nil)
	if err := w.refresh(patience); err == nil || !strings.Contains(err.Error(), "read DNS of "+resolvedName) {
		t.Errorf("%v", err)
	}
	if v := w.until("the fault", hasFault("No such property “DNS”")); len(v.Resolved.Servers) != 1 {
		t.Errorf("what it said last is gone: %+v", v)
	}
}

func TestRefreshWaitsForAReadThatBeginsAfterTheCall(t *testing.T) {
	b := quietBoard()
	b.settle(sourceUplinks, sourceResolved, sourceResolvConf, sourceNMDNS, sourceChained)
	for s := source(0); s < readSources; s++ {
		b.collect(s) // a read is under way
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- b.refresh(ctx) }()
	for s := source(0); s < readSources; s++ {
		<-b.kick[s] // the call was made
		b.publish(s, pending{}, nil, nil)
	}
	for s := source(0); s < readSources; s++ {
		select {
		case err := <-done:
			t.Fatalf("it returned by reads of before: %v", err)
		default:
		}
		b.collect(s)
		b.publish(s, pending{}, nil, nil)
	}
	must(t, <-done)
}

func TestRefreshDoesNotWaitForABusThatIsAway(t *testing.T) {
	bus := startBus(t)
	f := nmFake(t)
	f.own()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	w := watchFile(t, path)
	w.next("the first")
	bus.stop()
	w.until("away", hasFault("the system bus is away"))
	must(t, w.refresh(patience))
}

func TestRefreshEndsWhenTheBusGoesMeanwhile(t *testing.T) {
	bus := startBus(t)
	f := nmFake(t)
	f.own()
	w := watch(t)
	w.next("the first")
	f.hush()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.Refresh(ctx) }()
	bus.stop()
	must(t, <-done)
}
