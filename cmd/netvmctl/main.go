// Command netvmctl is the command line of the netvm: for people, and for units and scripts.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"netvmd/internal/config"
)

// version is set by the Makefile.
var version = "devel"

// Exit codes.
const (
	exitFine       = 0
	exitFailed     = 1
	exitUsage      = 2
	exitNotAllowed = 4
)

// failure is an error of the work itself; any other is one of usage.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// errSaid ends a command as failed whose output says it all.
var errSaid = failure{errors.New("said already")}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run runs one command and returns its exit code.
func run(args []string, out, complaints io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(complaints)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitFine
	}
	if !errors.As(err, &failure{}) {
		fmt.Fprintf(complaints, "netvmctl: %v; see %s --help\n", err, cmd.CommandPath())
		return exitUsage
	}
	if !errors.Is(err, errSaid) {
		fmt.Fprintln(complaints, "netvmctl:", err)
	}
	if errors.Is(err, fs.ErrPermission) {
		return exitNotAllowed
	}
	return exitFailed
}

// globals are the flags of every command.
type globals struct {
	config string
	json   bool
}

func newRoot() *cobra.Command {
	g := &globals{}
	root := &cobra.Command{
		Use:   "netvmctl",
		Short: "Look at the netvm, and load its firewall",
		Long: "netvmctl looks at the netvm and loads its firewall.\n\n" +
			"Exit codes: 0 fine, 1 failed, 2 wrong usage, 4 not allowed (most commands need root).",
		SilenceErrors: true, SilenceUsage: true,
	}
	root.PersistentFlags().StringVar(&g.config, "config", "", "configuration `file` (default "+config.DefaultPath+", or $NETVMD_CONFIG)")
	root.PersistentFlags().BoolVar(&g.json, "json", false, "print JSON")
	root.AddCommand(newFirewall(g), newVersion(g))
	return root
}

func newVersion(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if g.json {
				return printJSON(cmd.OutOrStdout(), map[string]string{"version": version})
			}
			return printed(fmt.Fprintln(cmd.OutOrStdout(), "netvmctl", version))
		},
	}
}

// work makes a command's function one whose errors are failures.
func work(f func(cmd *cobra.Command) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		if err := f(cmd); err != nil {
			return failure{err}
		}
		return nil
	}
}

// logTo makes a log for what a person should know beside the output.
func logTo(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
