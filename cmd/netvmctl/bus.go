package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/spf13/cobra"

	"netvmd/dbus"
	"netvmd/internal/netvm"
)

// polkitAction is the annotation of a command that names what polkit must allow.
const polkitAction = "polkit-action"

// needing says what polkit must allow those who are not root before they may use the command.
func needing(action string, cmd *cobra.Command) *cobra.Command {
	cmd.Annotations = map[string]string{polkitAction: action}
	return cmd
}

// withClient connects to netvmd for the work of a command.
func withClient(cmd *cobra.Command, f func(ctx context.Context, client *dbus.Client) error) error {
	return ask(cmd.Context(), f)
}

// ask connects to netvmd for one piece of work.
func ask(ctx context.Context, f func(ctx context.Context, client *dbus.Client) error) error {
	client, err := dbus.Connect(ctx)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w (%w)", dbus.ErrNotRunning, err)
	}
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // all answers are here
	return f(ctx, client)
}

// statusCommand is a command that shows something of the status.
func statusCommand(g *globals, use, short, long string, text func(*cobra.Command, netvm.Status) string, json func(netvm.Status) any) *cobra.Command {
	return command(use, short, long, func(cmd *cobra.Command) error {
		return withClient(cmd, func(ctx context.Context, client *dbus.Client) error {
			status, err := client.Status(ctx)
			if err != nil {
				return err
			}
			if g.json {
				return writeJSON(cmd, json(status))
			}
			return write(cmd, text(cmd, status))
		})
	})
}
