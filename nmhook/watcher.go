// Package nmhook watches the netvm's way out: NetworkManager, systemd-resolved and resolv.conf, and in a chained netvm the
// kernel's routes. Events come in,
// immutable netvm.View values go out.
//
// Each source has its own dirty flag. A signal only marks its source and stamps the time; the source is then
// read again in whole, so that lost, doubled or reordered signals cannot lead to a wrong view. The one short
// cut is NetworkManager's DNS configuration: the value that the signal carries is taken at once, and the
// property is read right after as the truth (see carried in networkmanager.go for the figures).
package nmhook

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"netvmd/internal/netvm"
)

// DefaultResolvConf is the file that the C library reads its nameservers from, resolv.conf(5).
const DefaultResolvConf = "/etc/resolv.conf"

// firstReadTimeout is how long the first token waits for a source that is there but silent. It is longer than
// every read's own deadline, so that an answer given at the last moment still counts.
const firstReadTimeout = 6 * time.Second

// Config is what a Watcher needs to know.
type Config struct {
	ResolvConf string       // path; "" = DefaultResolvConf
	Log        *slog.Logger // nil = nothing is logged
}

// Watcher follows the sources. Its methods may be called from any goroutine.
type Watcher struct {
	log        *slog.Logger
	resolvConf string
	board      *board
	chain      *chainFollower
}

// New returns a Watcher that follows nothing until Run.
func New(cfg Config) *Watcher {
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = DefaultResolvConf
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	b := newBoard(cfg.Log, cfg.ResolvConf)
	return &Watcher{log: cfg.Log, resolvConf: cfg.ResolvConf, board: b, chain: newChainFollower(b, cfg.Log)}
}

// Run follows everything until ctx ends, and returns nil then. A bus, NetworkManager or resolved that is away
// is normal life; an error means that the kernel refuses to watch files.
func (w *Watcher) Run(ctx context.Context) error {
	file, err := newFileFollower(w.resolvConf, w.board, w.log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	giveUp := time.AfterFunc(firstReadTimeout, w.board.giveUpWaiting)
	defer giveUp.Stop()

	var others sync.WaitGroup
	for _, run := range []func(context.Context){(&busFollower{board: w.board, log: w.log}).run, w.chain.run} {
		others.Add(1)
		go func() {
			defer others.Done()
			run(ctx)
		}()
	}
	err = file.run(ctx)
	cancel()
	others.Wait()
	return err
}

// Serve tells whether another netvm serves this one, so that the kernel's own way out is followed too. It may be called at
// any time; the first view is right about it only if it was before Run.
func (w *Watcher) Serve(served bool) { w.chain.serve(served) }

// Changed has a token when there is a view that was not taken yet. The first one comes after every source that
// is present was read once in whole.
func (w *Watcher) Changed() <-chan struct{} { return w.board.changed }

// Take returns the newest view. Its Arrived is the arrival of the oldest signal that it answers and that no
// earlier view answered, its Signals their number.
func (w *Watcher) Take() netvm.View { return w.board.take() }

// Refresh has every source that is there read again, and returns when Take has what they say; a token follows only if
// something is different. The error names the sources that do not answer, or not before ctx ends; what they said last
// stays.
func (w *Watcher) Refresh(ctx context.Context) error { return w.board.refresh(ctx) }
