package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
)

// helpFlag is a flag as Go's package flag prints it: indented by two blanks, its meaning on the next line.
var helpFlag = regexp.MustCompile(`(?m)^  -([a-z-]+)(?: (\S+))?\n    \t(.*)$`)

// programFlags writes the flags that a program's --help tells.
func programFlags(ctx context.Context, program string) (string, error) {
	help, err := exec.CommandContext(ctx, program, "--help").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s --help: %w: %s", program, err, help)
	}
	found := helpFlag.FindAllStringSubmatch(string(help), -1)
	if len(found) == 0 {
		return "", fmt.Errorf("%s --help names no flags: %s", program, help)
	}
	var options []option
	for _, f := range found {
		options = append(options, option{Name: f[1], Value: f[2], Usage: f[3]})
	}
	var b strings.Builder
	writeOptions(&b, options)
	return b.String(), nil
}
