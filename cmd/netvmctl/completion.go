package main

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
)

const completionHelp = `Completion prints a script that lets a shell complete netvmctl's commands and
flags. Packages install these scripts; by hand:

  netvmctl completion bash >/etc/bash_completion.d/netvmctl
  netvmctl completion zsh >/usr/share/zsh/site-functions/_netvmctl
  netvmctl completion fish >/etc/fish/completions/netvmctl.fish`

func newCompletion() *cobra.Command {
	scripts := map[string]func(*cobra.Command, io.Writer) error{
		"bash": func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		"zsh":  func(root *cobra.Command, w io.Writer) error { return root.GenZshCompletion(w) },
		"fish": func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
	}
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use: "completion bash|zsh|fish", Short: "Print a script for a shell's completion", Long: completionHelp,
		ValidArgs: shells,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(shells, args[0]) {
				return errors.New("bash, zsh or fish is wanted")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := scripts[args[0]](cmd.Root(), cmd.OutOrStdout()); err != nil {
				return failure{fmt.Errorf("print: %w", err)}
			}
			return nil
		},
	}
}
