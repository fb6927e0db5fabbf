package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func (f *followed) refresh(patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return f.Refresh(ctx)
}

// A service flag is a file, of which the store says nothing.
func raiseFlag(t *testing.T, o Options) {
	t.Helper()
	if err := os.MkdirAll(o.ServiceDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.ServiceDir, hardenService), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRefreshReturnsWhenWhatNoWatchAnnouncedCanBeTaken(t *testing.T) {
	for _, kind := range stores {
		t.Run(kind.kind, func(t *testing.T) {
			o := machine(t, kind.kind)
			closeAtEnd(t, kind.start(t, o))
			f := follow(t, o)
			f.settings(Settings{})
			raiseFlag(t, o)
			if err := f.refresh(patience); err != nil {
				t.Fatal(err)
			}
			if s, problems := f.Take(); !s.Harden || len(problems) != 0 || len(f.Changed()) != 1 {
				t.Errorf("%+v, %q, %d tokens", s, problems, len(f.Changed()))
			}
		})
	}
}

func TestRefreshWithoutAStoreIsNoError(t *testing.T) {
	for _, kind := range []string{None, Auto} {
		t.Run(kind, func(t *testing.T) {
			f := follow(t, machine(t, kind))
			f.settings(Settings{})
			if err := f.refresh(patience); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRefreshSaysThatTheStoreHasGone(t *testing.T) {
	o := machine(t, QubesDB)
	f := follow(t, o)
	f.problem(Settings{}, "no such file or directory")
	if err := f.refresh(patience); err == nil || !strings.Contains(err.Error(), "the store cannot be followed") {
		t.Errorf("%v", err)
	}
}

func TestRefreshWaitsNoLongerThanItsCaller(t *testing.T) {
	f := &followed{Follower: NewFollower(machine(t, None), nil), t: t} // nobody runs it
	if err := f.refresh(time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
