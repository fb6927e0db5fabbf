package main

import (
	"fmt"
	"os"
	"strings"
)

// keys writes what packaging/netvmd.toml says.
func keys() (string, error) {
	const path = "packaging/netvmd.toml"
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return keysOf(path, string(text))
}

// keysOf writes a section for every table of a configuration, with its keys, their meanings and defaults. There a key
// stands behind "#" with its default; the lines behind "# " above it are its meaning. path is for errors alone.
func keysOf(path, text string) (string, error) {
	var b strings.Builder
	var meaning []string
	b.WriteString("### At the beginning of the file\n")
	for i, line := range strings.Split(text, "\n") {
		switch {
		case line == "":
			meaning = nil // a remark on the file
		case strings.HasPrefix(line, "["):
			fmt.Fprintf(&b, "### %s\n", plain(line))
		case strings.HasPrefix(line, "# "):
			meaning = append(meaning, line[len("# "):])
		default:
			key, value, found := strings.Cut(strings.TrimPrefix(line, "#"), " = ")
			if !found || len(meaning) == 0 {
				return "", fmt.Errorf("%s:%d: a key with its default and, above it, its meaning is wanted: %s", path, i+1, line)
			}
			b.WriteString(definition("**"+plain(key)+"** = `"+value+"`", plain(strings.Join(meaning, "\n"))))
			meaning = nil
		}
	}
	return b.String(), nil
}
