package packaging_test

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"netvmd/tray/view"
)

// man reads an installed page as a person does, at 80 columns.
func (r root) man(name string) string {
	r.Helper()
	return r.output("man", "--warnings", "--encoding=UTF-8", "--local-file", r.path(name))
}

// says fails unless the page holds all the phrases; where its lines break does not count.
func (r root) says(name string, phrases ...string) {
	r.Helper()
	page := strings.Join(strings.Fields(r.man(name)), " ")
	for _, p := range phrases {
		if !strings.Contains(page, p) {
			r.Errorf("%s does not say %q", name, p)
		}
	}
}

// explains fails unless the page has a paragraph for each of the flags, which begins with it.
func (r root) explains(name string, flags ...string) {
	r.Helper()
	page := r.man(name)
	for _, f := range flags {
		if !regexp.MustCompile(`(?m)^ +(-\w, )?` + f + `( |$)`).MatchString(page) {
			r.Errorf("%s does not explain %s", name, f)
		}
	}
}

// matches are the first groups of all that matches in a text, which must be something.
func (r root) matches(pattern, text string) (found []string) {
	r.Helper()
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	if len(found) == 0 {
		r.Fatalf("nothing matches %s in:\n%s", pattern, text)
	}
	return found
}

func (r root) pagesAreWhole() {
	for name := range installed {
		if !strings.HasPrefix(name, "usr/share/man/") {
			continue
		}
		page := r.man(name)
		for _, section := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"} {
			if !strings.Contains(page, "\n"+section+"\n") {
				r.Errorf("%s has no section %s", name, section)
			}
		}
		if strings.Contains(page, "\u2010") {
			r.Errorf("%s has hyphenated words, which cannot be copied", name)
		}
		for i, line := range strings.Split(page, "\n") {
			if utf8.RuneCountInString(line) > 80 {
				r.Errorf("%s:%d is wider than a terminal: %s", name, i+1, line)
			}
			if strings.Contains(line, "**") || strings.Contains(line, "{{") || strings.Contains(line, "```") {
				r.Errorf("%s:%d holds marks that were not understood: %s", name, i+1, line)
			}
		}
	}
}

const netvmctlPage = "usr/share/man/man1/netvmctl.1"

func (r root) pageHasCommands() {
	commands, flags := r.commandsBelow()
	if len(commands) < 5 || len(flags) < 5 {
		r.Errorf("netvmctl completes only %q and %q", commands, flags)
	}
	r.says(netvmctlPage, append(commands, "EXIT STATUS")...)
	r.explains(netvmctlPage, flags...)
}

// commandsBelow asks netvmctl itself what it would complete: the commands, as lines, and their flags.
func (r root) commandsBelow(path ...string) (commands, flags []string) {
	for _, word := range r.completions(append(path, "")) {
		command := slices.Concat(path, []string{word})
		line := "netvmctl " + strings.Join(command, " ")
		help, err := exec.Command(r.path("usr/bin/netvmctl"), append(command, "--help")...).Output()
		if err != nil || !strings.Contains(string(help), "\n  "+line) {
			continue // a word that a command takes
		}
		for _, flag := range r.completions(append(command, "--")) {
			if flag = strings.TrimSuffix(flag, "="); flag != "--help" {
				flags = append(flags, flag)
			}
		}
		below, flagsBelow := r.commandsBelow(command...)
		commands, flags = slices.Concat(commands, []string{line}, below), slices.Concat(flags, flagsBelow)
	}
	return commands, flags
}

// completions are the words that the shells would offer for the last one.
func (r root) completions(line []string) (words []string) {
	r.Helper()
	out, err := exec.Command(r.path("usr/bin/netvmctl"), append([]string{"__complete"}, line...)...).Output()
	if err != nil {
		r.Fatalf("netvmctl __complete %q: %v", line, err)
	}
	for _, l := range strings.Split(string(out), "\n") {
		if word, _, _ := strings.Cut(l, "\t"); word != "" && !strings.HasPrefix(word, ":") && word != "help" {
			words = append(words, word)
		}
	}
	return words
}

func (r root) pagesHaveFlags() {
	for program, page := range map[string]string{
		"usr/bin/netvmd":                     "usr/share/man/man8/netvmd.8",
		"usr/bin/netvm-tray":                 "usr/share/man/man1/netvm-tray.1",
		"usr/lib/netvmd/vif-route-netvm":     "usr/share/man/man8/vif-route-netvm.8",
		"usr/bin/qvm-dom0-network-via-netvm": "usr/share/man/man8/qvm-dom0-network-via-netvm.8",
	} {
		help, err := exec.Command(r.path(program), "--help").CombinedOutput()
		if err != nil {
			r.Fatal(err)
		}
		for _, flag := range r.matches(`(?m)^  -(\S+)`, string(help)) {
			r.explains(page, "--"+flag)
		}
	}
}

func (r root) pageHasIcons() {
	for _, icon := range view.Icons {
		r.says("usr/share/man/man1/netvm-tray.1", string(icon))
	}
}

func (r root) pageHasMembers() {
	ours, _, _ := strings.Cut(r.read("usr/share/dbus-1/interfaces/org.qubes_os.NetVM1.xml"), "</interface>")
	errors, err := os.ReadFile("../dbus/errors.go")
	if err != nil {
		r.Fatal(err)
	}
	const page = "usr/share/man/man5/org.qubes_os.NetVM1.5"
	r.says(page, r.matches(`<(?:property|method|signal) name="(\w+)"`, ours)...)
	r.says(page, r.matches(`action id="([\w.]+)"`, r.read("usr/share/polkit-1/actions/org.qubes_os.NetVM1.policy"))...)
	for _, name := range r.matches(`= errorPrefix \+ "(\w+)"`, string(errors)) {
		r.says(page, "org.qubes_os.NetVM1.Error."+name)
	}
}

func (r root) pageHasKeys() {
	r.says("usr/share/man/man5/netvmd.toml.5", r.matches(`(?m)^#?([a-z0-9_]+ = .*|\[\w+\])$`, r.read("etc/netvmd/netvmd.toml"))...)
}
