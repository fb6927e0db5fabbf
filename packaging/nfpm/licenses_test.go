package nfpm

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestLicensesNameEveryLibraryInAProgram(t *testing.T) {
	program := filepath.Join(t.TempDir(), "netvmctl")
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/netvmctl").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	held, err := exec.Command("go", "version", "-m", program).Output()
	if err != nil {
		t.Fatalf("go version: %v", err)
	}
	out, err := exec.Command("./licenses.sh", program).Output()
	if err != nil {
		t.Fatalf("licenses.sh: %v", err)
	}
	notices := make(map[string]string) // what is said of a library
	for _, section := range strings.Split(string(out), "\n---- ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		name, _, _ := strings.Cut(title, " ")
		notices[name] = strings.TrimSpace(text)
	}
	count := 0
	for _, line := range strings.Split(string(held), "\n") {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != "dep" {
			continue
		}
		if count++; notices[words[1]] == "" {
			t.Errorf("nothing is said of %s", words[1])
		}
	}
	if count < 10 || count != len(notices) {
		t.Errorf("%d libraries, of which %d have a notice", count, len(notices))
	}
	for library, notice := range map[string]string{
		"github.com/BurntSushi/toml":       "MIT License",
		"github.com/godbus/dbus/v5":        "Redistributions in binary form must reproduce",
		"github.com/coreos/go-systemd/v22": "Apache License 2.0, as netvmd itself.\nCoreOS Project\nCopyright",
	} {
		if !strings.Contains(notices[library], notice) {
			t.Errorf("%s has no %q:\n%s", library, notice, notices[library])
		}
	}
	if strings.Contains(string(out), "TERMS AND CONDITIONS") {
		t.Error("the Apache License is there once more")
	}
}

func TestLicensesFailOfWhatIsNoProgram(t *testing.T) {
	if out, err := exec.Command("./licenses.sh", "licenses.sh").CombinedOutput(); err == nil {
		t.Errorf("it says %q", out)
	}
}
