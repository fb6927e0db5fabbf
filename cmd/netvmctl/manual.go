//go:build manual

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// With the tag manual netvmctl does nothing but say which commands and flags it has, as JSON for packaging/man.
func init() {
	root := newRoot()
	manual := map[string]any{"Flags": options(root.PersistentFlags()), "Commands": commands(root)}
	if err := json.NewEncoder(os.Stdout).Encode(manual); err != nil {
		fmt.Fprintln(os.Stderr, "netvmctl:", err)
		os.Exit(exitFailed)
	}
	os.Exit(exitFine)
}

// commands are all below a command that do something, in the order of the help.
func commands(below *cobra.Command) (list []map[string]any) {
	for _, c := range below.Commands() {
		if !c.IsAvailableCommand() {
			continue
		}
		if c.Runnable() {
			list = append(list, map[string]any{
				"Use": strings.TrimSuffix(c.UseLine(), " [flags]"), "Short": c.Short, "Long": c.Long, "Example": c.Example,
				"Flags": options(c.LocalNonPersistentFlags()),
			})
		}
		list = append(list, commands(c)...)
	}
	return list
}

func options(flags *pflag.FlagSet) (list []map[string]string) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		standard := f.DefValue
		if standard == "false" || standard == "[]" {
			standard = ""
		}
		list = append(list, map[string]string{
			"Name": f.Name, "Shorthand": f.Shorthand, "Value": value, "Usage": usage, "Default": standard,
		})
	})
	return list
}
