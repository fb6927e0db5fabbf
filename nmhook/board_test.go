package nmhook

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	nm "github.com/Wifx/gonetworkmanager/v3"
	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
)

func quietBoard() *board {
	return newBoard(slog.New(slog.NewTextHandler(io.Discard, nil)), DefaultResolvConf)
}

func putServer(text string) func(*netvm.View) {
	return func(v *netvm.View) {
		v.NetworkManager.Entries = []netvm.DNSEntry{{Servers: addrs(text)}}
	}
}

func TestAnAnswerOlderThanTheLastSignalIsNotUsed(t *testing.T) {
	b := quietBoard()
	b.giveUpWaiting()
	asked, carried := b.collect(sourceNMDNS)
	b.publishCarried(pending{arrived: time.Now(), signals: 1}, nil, putServer("192.0.2.2"))
	if b.publishRead(sourceNMDNS, asked, carried, nil, putServer("192.0.2.1")) {
		t.Error("an answer that was asked for before the signal is published")
	}
	if v := b.take(); !uplinkIs("192.0.2.2")(v) {
		t.Errorf("the view is %+v", v)
	}
}

func TestAViewAnswersTheOldestSignalAndCountsAll(t *testing.T) {
	b := quietBoard()
	b.giveUpWaiting()
	b.take()
	first := time.Now()
	b.publish(sourceNMDNS, pending{first.Add(time.Second), 2}, nil, putServer("192.0.2.1"))
	b.publish(sourceNMDNS, pending{first, 3}, nil, putServer("192.0.2.2"))
	b.publish(sourceUplinks, pending{first.Add(-time.Hour), 4}, nil, nil) // answered, but not what changed
	if v := b.take(); !v.Arrived.Equal(first) || v.Signals != 9 {
		t.Errorf("Arrived %v, Signals %d, want %v, 9", v.Arrived, v.Signals, first)
	}
	b.publish(sourceNMDNS, pending{first, 3}, nil, putServer("192.0.2.2"))
	if v := b.take(); len(b.changed) != 0 || v.Signals != 0 || !v.Arrived.IsZero() {
		t.Errorf("a signal that changed nothing gives a token or is remembered: %+v", v)
	}
}

func TestAViewThatWasHandedOutIsNeverChanged(t *testing.T) {
	b := quietBoard()
	b.publish(sourceNMDNS, pending{}, []string{"one"}, putServer("192.0.2.1"))
	before := b.take()
	b.publish(sourceNMDNS, pending{}, []string{"two"}, putServer("192.0.2.2"))
	b.take()
	if !uplinkIs("192.0.2.1")(before) || before.Faults[0] != "one" {
		t.Errorf("it became %+v", before)
	}
}

func TestAFaultIsOneShortLineWhateverTheServiceSaid(t *testing.T) {
	got := sentences([]string{"a\nb\x1b[31m\x00c", strings.Repeat("é", 1000), "bad \xff byte"})
	for _, f := range got {
		if strings.ContainsAny(f, "\n\x1b\x00") || len(f) > maxFault+8 || strings.ToValidUTF8(f, "") != f {
			t.Errorf("fault %q", f)
		}
	}
	many := sentences(make([]string, 100))
	if len(many) != maxFaults+1 || many[maxFaults] != "84 more faults of this source" {
		t.Errorf("%d faults, the last %q", len(many), many[len(many)-1])
	}
}

func TestAStuckCallEndsWithItsDeadlineAndTheNextOneWorks(t *testing.T) {
	startBus(t)
	f := nmFake(t)
	f.own()
	stuck, err := godbus.SystemBus()
	must(t, err)
	speak := f.hush()
	state := func(context.Context) (nm.NmState, error) {
		manager, err := nm.NewNetworkManager()
		if err != nil {
			return 0, err
		}
		return manager.GetPropertyState()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := ask(ctx, "its state", state); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the stuck call gave %v", err)
	}
	if stuck.Connected() {
		t.Error("the connection of the stuck call is still open")
	}
	speak()
	ctx, cancel = context.WithTimeout(context.Background(), patience)
	defer cancel()
	if got, err := ask(ctx, "its state", state); err != nil || got != nm.NmStateConnectedGlobal {
		t.Errorf("the next call gave %v, %v", got, err)
	}
}

func TestWithoutABusTheFirstViewDoesNotWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	writeFile(t, path, "nameserver 192.0.2.1\n")
	began := time.Now()
	w := watchNoBus(t, path)
	v := w.next("the first")
	if waited := time.Since(began); waited >= firstReadTimeout {
		t.Errorf("it came after %s", waited)
	}
	if !resolvConfIs("192.0.2.1")(v) || !faultWith(v, "the system bus is away") {
		t.Errorf("got %+v", v)
	}
}
