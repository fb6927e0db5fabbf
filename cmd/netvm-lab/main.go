// Command netvm-lab builds a whole netvm on any Linux box, in namespaces, and shows, explores or measures it.
// Nothing that it does is seen outside, and nothing is left behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"netvmd/internal/lab"
)

const usage = `netvm-lab builds a whole netvm on this machine, in namespaces: networks with real
DHCP and DNS servers, a netvm with a real D-Bus, NetworkManager and netvmd, and
AppVMs. Nothing of it is seen outside, and nothing is left behind. It needs root.

Usage: netvm-lab COMMAND [FLAGS]

  demo    tell the story of AppVM DNS that follows the uplink; fails if a step
          does not hold
  shell   open a shell in the netvm, to look around and to change things
  tray    the same shell, and netvm-tray for this netvm on your own desktop
  bench   measure: time of a DNS change, queries lost, what idling costs, what a
          flood of calls does, time to bring a vif up, what 256 of them cost, and
          how soon the tray shows a change
  pictures
          picture netvm-tray in every state, on one sheet
  exec    netvm-lab exec HOST -- COMMAND...: run a command in a host of the lab
          (inside of netvm-lab shell)
  ask     netvm-lab ask SERVER...: which of the lab's resolvers answers there
          (in a host of the lab)
  spoof   send packets as if from other addresses (in a host of the lab)
  portal  netvm-lab portal shut|open: put a captive portal into the way at home, or
          take it away (in the netvm)
  help    print this

Flags of each command: netvm-lab COMMAND --help

Exit code: 0 all is well, 1 something failed or did not hold, 2 wrong usage,
130 interrupted.
`

// The exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 128 + int(syscall.SIGINT)
)

// errUsage marks a mistake on the command line.
var errUsage = errors.New("see netvm-lab help")

var commands = map[string]func(ctx context.Context, args []string) error{
	"demo":     demo,
	"shell":    shell,
	"tray":     tray,
	"bench":    bench,
	"pictures": pictures,
	"exec":     execute,
	"ask":      ask,
	"spoof":    spoof,
	"portal":   portal,
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(exitUsage)
	}
	switch os.Args[1] {
	case "help", "--help", "-help", "-h":
		fmt.Fprint(os.Stdout, usage)
		return
	}
	command, ok := commands[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "netvm-lab: no command %q; %v\n", os.Args[1], errUsage)
		os.Exit(exitUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := command(ctx, os.Args[2:])
	interrupted := ctx.Err() != nil
	stop()
	os.Exit(report(err, interrupted))
}

// report tells what went wrong and returns the exit code.
func report(err error, interrupted bool) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case interrupted:
		fmt.Fprintln(os.Stderr, "netvm-lab: interrupted; everything is cleaned up")
		return exitInterrupted
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "netvm-lab:", err)
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "netvm-lab:", err)
	return exitFailed
}

// common are the flags of every command that builds a lab.
type common struct {
	netvmd  string
	backend string
	logs    string
}

// parse reads a command's flags; extra adds those of the command alone.
func parse(name, about string, args []string, extra func(*flag.FlagSet)) (common, error) {
	var c common
	flags := flag.NewFlagSet("netvm-lab "+name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&c.netvmd, "netvmd", "", "the netvmd `binary` (default: the one beside netvm-lab, then PATH)")
	flags.StringVar(&c.backend, "backend", string(lab.NFTables), "nftables, iptables-nft or iptables-legacy")
	flags.StringVar(&c.logs, "logs", "", "copy the logs of all daemons to this `folder` at the end")
	if extra != nil {
		extra(flags)
	}
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(os.Stdout, "%s\n\nFlags:\n", about)
		flags.SetOutput(os.Stdout)
		flags.PrintDefaults()
		return c, err
	case err != nil:
		return c, fmt.Errorf("%s: %w; %w", name, err, errUsage)
	case flags.NArg() > 0:
		return c, fmt.Errorf("%s: unexpected argument %q; %w", name, flags.Arg(0), errUsage)
	}
	return c, c.find()
}

// find makes the path of netvmd absolute.
func (c *common) find() error {
	if c.netvmd == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find netvmd: %w", err)
		}
		c.netvmd = filepath.Join(filepath.Dir(self), "netvmd")
		if _, err := os.Stat(c.netvmd); err != nil {
			c.netvmd = "netvmd"
		}
	}
	path, err := exec.LookPath(c.netvmd)
	if err != nil {
		return fmt.Errorf("find netvmd: %w; build it with `make build`, or name it with --netvmd", err)
	}
	c.netvmd, err = filepath.Abs(path)
	return err
}

// beside is another program, which lies beside netvmd.
func (c *common) beside(program string) string { return filepath.Join(filepath.Dir(c.netvmd), program) }

// backends returns those that were asked for.
func (c *common) backends() ([]lab.Backend, error) {
	known := []lab.Backend{lab.NFTables, lab.IPTablesNFT, lab.IPTablesLegacy}
	if c.backend == "all" {
		return known, nil
	}
	for _, b := range known {
		if c.backend == string(b) {
			return []lab.Backend{b}, nil
		}
	}
	return nil, fmt.Errorf("no backend %q; %w", c.backend, errUsage)
}

// withLab builds the lab, starts netvmd with a log level, lets use work with it, and closes all.
func (c *common) withLab(ctx context.Context, b lab.Backend, level string, use func(*lab.Lab) error) error {
	return c.withLabOf(ctx, c.options(b, level), use)
}

// options are those of a usual lab.
func (c *common) options(b lab.Backend, level string) lab.Options {
	return lab.Options{Netvmd: c.netvmd, VifRoute: c.beside("vif-route-netvm"), Backend: b, LogLevel: level}
}

// withLabOf is withLab for a lab with options.
func (c *common) withLabOf(ctx context.Context, o lab.Options, use func(*lab.Lab) error) (err error) {
	l, err := lab.New(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := l.Close(); closeErr != nil {
			err = errors.Join(err, closeErr)
		}
		if c.logs != "" {
			err = errors.Join(err, copyLogs(filepath.Join(c.logs, string(o.Backend))))
		}
	}()
	if err := l.NetVM.StartNetvmd(ctx); err != nil {
		return err
	}
	return use(l)
}

func copyLogs(dir string) error {
	logs, err := lab.Logs()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("copy logs: %w", err)
	}
	for name, text := range logs {
		if err := os.WriteFile(filepath.Join(dir, name+".log"), []byte(text), 0o644); err != nil {
			return fmt.Errorf("copy logs: %w", err)
		}
	}
	return nil
}

// execute is `netvm-lab exec HOST -- COMMAND...`.
func execute(_ context.Context, args []string) error {
	if len(args) > 1 && args[1] == "--" {
		args = append(args[:1:1], args[2:]...)
	}
	if len(args) < 2 || strings.HasPrefix(args[0], "-") {
		return fmt.Errorf("exec: netvm-lab exec HOST -- COMMAND...; %w", errUsage)
	}
	return lab.Exec(args[0], args[1:])
}

// portal is `netvm-lab portal shut|open`.
func portal(ctx context.Context, args []string) error {
	if len(args) != 1 || args[0] != "shut" && args[0] != "open" {
		return fmt.Errorf("portal: netvm-lab portal shut|open; %w", errUsage)
	}
	return lab.TurnPortal(ctx, args[0] == "shut")
}

// ask is `netvm-lab ask SERVER...`.
func ask(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("ask: netvm-lab ask SERVER...; %w", errUsage)
	}
	var failed []error
	for _, arg := range args {
		server, err := netip.ParseAddr(arg)
		if err != nil {
			return fmt.Errorf("ask: %w; %w", err, errUsage)
		}
		a, err := lab.Ask(ctx, server, lab.Question{})
		if err != nil {
			failed = append(failed, fmt.Errorf("%w, after %s", err, ms(a.Took)))
			continue
		}
		fmt.Fprintf(os.Stdout, "%s: %s answers, %s\n", server, a.Who, ms(a.Took))
	}
	return errors.Join(failed...)
}
