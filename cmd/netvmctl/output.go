package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"netvmd/internal/report"
)

// screen is what a command's output is written for.
func screen(cmd *cobra.Command) report.Screen {
	file, is := cmd.OutOrStdout().(*os.File)
	if !is {
		return report.Screen{}
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil { // it is no terminal
		return report.Screen{}
	}
	// https://no-color.org: any value but none. A terminal that calls itself dumb has no escape sequences.
	colour := os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && os.Getenv("TERM") != ""
	return report.Screen{Width: int(size.Col), Colour: colour}
}

// write writes a command's output.
func write(cmd *cobra.Command, text string) error {
	if _, err := io.WriteString(cmd.OutOrStdout(), text); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// writeJSON writes a command's output as JSON.
func writeJSON(cmd *cobra.Command, v any) error {
	if err := report.WriteJSON(cmd.OutOrStdout(), v, true); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
