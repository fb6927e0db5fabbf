// Package dom0 puts dom0 on the network for a short while, through the netvm, as if it were one of its AppVMs: all other
// domains stand paused meanwhile. Each step is written into a journal before it is taken, so that what was done can be
// taken back after a crash at any instant.
package dom0

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"netvmd/internal/config"
	"netvmd/internal/flock"
	"netvmd/internal/store/xenstore"
)

// DefaultAddress is dom0's address for the while: the last but one of the network of which Qubes gives AppVMs theirs.
var DefaultAddress = netip.AddrFrom4([4]byte{10, 137, 255, 254})

// mac is that of dom0's card, in the range that Xen gives away (00:16:3e). It is always the same, so that even without a
// journal it can be told whose card it is.
const mac = "00:16:3e:5e:6c:fe"

// Options say what is done, and where.
type Options struct {
	Netvm   string     // the domain's name; "" = sys-net if it runs, else netvm
	Address netip.Addr // dom0's, IPv4
	Gateway netip.Addr // the zero Addr = the configuration's, else the netvm's store's
	DryRun  bool       // print the steps, and do nothing

	Config  config.Config
	Version string    // of the program, for the journal
	Out     io.Writer // gets a line before each step
	Log     *slog.Logger
	Root    string // before /proc and /var/run/qubes; "" but in tests
}

// ErrNotAllowed is wrapped when the caller is not root.
var ErrNotAllowed = errors.New("only root may do this")

// tool is one run of the program.
type tool struct {
	Options
	xl    xl
	store nodes
}

// lockPatience is how long another run may still be at work: longer than an xl that it has left.
const lockPatience = xlTimeout + xlEnd + 5*time.Second

// open checks what up and down both need, and keeps other runs out until close.
func open(ctx context.Context, o Options) (*tool, error) {
	if err := checkDom0(o.Root); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, ErrNotAllowed
	}
	if _, err := exec.LookPath("xl"); err != nil {
		return nil, fmt.Errorf("xl, the toolstack's program, is not here: %w", err)
	}
	client, err := xenstore.Open(ctx, o.Config.Store.XenStorePath)
	if err != nil {
		return nil, err
	}
	t := &tool{Options: o, store: nodes{client}}
	if !o.DryRun { // that is no work
		if t.xl.lock, err = t.lockState(ctx); err != nil {
			return nil, errors.Join(err, client.Close())
		}
	}
	return t, nil
}

// close lets the next run begin. Nothing was written that could be lost.
func (t *tool) close() {
	_ = t.store.Close()
	if t.xl.lock != nil {
		_ = t.xl.lock.Close()
	}
}

// capabilities says what a domain may do: dom0 alone controls the others (Linux, drivers/xen/xenfs/super.c).
const capabilities = "/proc/xen/capabilities"

// IsDom0 tells whether this is dom0. root stands before the path; "" but in tests.
func IsDom0(root string) (bool, error) {
	text, err := os.ReadFile(root + capabilities)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return strings.Contains(string(text), "control_d"), err
}

func checkDom0(root string) error {
	is, err := IsDom0(root)
	if err == nil && !is {
		err = fmt.Errorf("this is not dom0, as %s does not say control_d: run it in dom0", capabilities)
	}
	return err
}

// bootID is another one after each boot (proc_sys_kernel(5)).
func bootID(root string) (string, error) {
	const path = "/proc/sys/kernel/random/boot_id"
	text, err := os.ReadFile(root + path)
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(text))
	if !uuid.MatchString(id) {
		return "", fmt.Errorf("%s: %.64q is no id of a boot", path, id)
	}
	return id, nil
}

// lockState keeps other runs out. The kernel gives the lock back when its holder and each xl that it has started have
// ended.
func (t *tool) lockState(ctx context.Context) (*os.File, error) {
	dir := t.Config.StateDir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the journal: %w", err)
	}
	path := filepath.Join(dir, "dom0-network.lock")
	file, err := flock.Try(path)
	if !errors.Is(err, flock.ErrHeld) {
		return file, err
	}
	if err := t.say("wait for another run, or an xl that one has left"); err != nil {
		return nil, err
	}
	return flock.Lock(ctx, path, lockPatience)
}

// say prints a line. Where nobody reads it any more, nothing new is begun; what is taken back is taken back all the same.
func (t *tool) say(format string, values ...any) error {
	if _, err := fmt.Fprintf(t.Out, format+"\n", values...); err != nil {
		return fmt.Errorf("say what is done: %w", err)
	}
	return nil
}
