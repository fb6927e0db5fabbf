package engine

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"netvmd/internal/netvm"
)

// A look by the old targets would delete flows to the new ones, with answers on their way.
func TestNoLookAtTheFlowsWhileTheTargetsChange(t *testing.T) {
	p := newPurge(Parts{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	looking := make(chan struct{})
	ended := make(chan bool)
	go func() {
		ended <- p.look(ctx, "flows", func(ctx context.Context, _ []netvm.Target) (int, error) {
			close(looking)
			<-ctx.Done()
			return 0, ctx.Err()
		})
	}()
	<-looking
	p.hold()
	if <-ended {
		t.Error("the look under way was not ended, or will not be tried again")
	}

	looks := 0
	look := func() bool {
		return p.look(ctx, "flows", func(context.Context, []netvm.Target) (int, error) { looks++; return 0, nil })
	}
	if look() || looks != 0 {
		t.Error("a look began while the targets change")
	}
	p.follow(nil)
	if !look() || looks != 1 {
		t.Error("no look after the targets changed")
	}
	p.hold()
	p.resume()
	if !look() || looks != 2 {
		t.Error("no look after the targets stayed as they were")
	}
}
