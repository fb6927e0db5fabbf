package container

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// groupsAt is where the hierarchies of control groups are mounted (systemd's file-hierarchy(7)).
const groupsAt = "/sys/fs/cgroup"

// controlGroups are a container's: one folder in each hierarchy that systemd makes folders in. Two containers in the same
// group would end each other's services.
type controlGroups []string

// newControlGroups makes them below the groups of this process.
func newControlGroups(name string) (controlGroups, error) {
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("control groups: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var made controlGroups
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		for _, at := range hierarchy(groupsAt, lines.Text()) {
			dir := filepath.Join(at, name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				return nil, errors.Join(fmt.Errorf("control groups: %w", err), made.remove())
			}
			made = append(made, dir)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, errors.Join(fmt.Errorf("control groups: %w", err), made.remove())
	}
	return made, nil
}

// hierarchy is where this process's group is mounted below a folder, from a line of /proc/self/cgroup,
// NUMBER:CONTROLLERS:PATH (cgroups(7)); nothing for a hierarchy that systemd makes no folders in, or for a group that is
// outside of what is mounted: its path begins with "/..".
func hierarchy(below, line string) []string {
	fields := strings.SplitN(line, ":", 3)
	if len(fields) != 3 || slices.Contains(strings.Split(fields[2], "/"), "..") {
		return nil
	}
	var mounts []string
	switch {
	case fields[1] == "name=systemd":
		mounts = []string{"systemd"}
	case fields[0] == "0":
		mounts = []string{"", "unified"} // alone, or beside the older hierarchies
	}
	for _, mount := range mounts {
		dir := filepath.Join(below, mount)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			return []string{filepath.Join(dir, fields[2])}
		}
	}
	return nil
}

// command is a program that is in these groups from its start: a shell puts itself there and becomes the program.
func (g controlGroups) command(args ...string) *exec.Cmd {
	var join strings.Builder
	for _, dir := range g {
		fmt.Fprintf(&join, "echo $$ >'%s/cgroup.procs' && ", dir)
	}
	return exec.Command("sh", append([]string{"-c", join.String() + `exec "$@"`, "sh"}, args...)...)
}

// remove removes them with all groups below, if they are still there. Nothing runs in them any more.
func (g controlGroups) remove() error {
	var errs []error
	for _, dir := range g {
		var folders []string
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				folders = append(folders, path)
			}
			return err
		})
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for i := len(folders) - 1; i >= 0; i-- { // the deepest first
			errs = append(errs, os.Remove(folders[i]))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("control groups: %w", err)
	}
	return nil
}
