package uplink

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// record is the file <runtime_dir>/uplinks/<interface>.json: what may have been done to an interface, and what was before.
type record struct {
	Index   int               `json:"index"`   // of the device that the next four are about; 0 = none of them
	Group   uint32            `json:"group"`   // what it was in before
	Routes  []netRoute        `json:"routes"`  // that it may have of ours
	Hosts   []netip.Addr      `json:"hosts"`   // likewise neighbours
	Own     []netip.Prefix    `json:"own"`     // likewise addresses
	Sysctls map[string]string `json:"sysctls"` // what they were before, by their path below /proc/sys
	NM      string            `json:"nm"`      // the UUID of the connection in NetworkManager; "" = none
	// Resolved: systemd-resolved was told of the device.
	Resolved bool `json:"resolved"`
	// ResolvConf is the file that was replaced; "" = none.
	ResolvConf string `json:"resolv_conf"`
}

// netRoute is a route over the interface.
type netRoute struct {
	To  netip.Prefix `json:"to"`
	Via netip.Addr   `json:"via"` // the zero Addr = on the link
}

// empty tells whether there is nothing to be reverted.
func (r record) empty() bool {
	return r.Index == 0 && len(r.Sysctls) == 0 && r.NM == "" && !r.Resolved && r.ResolvConf == ""
}

// maxRecord is how large a record may be, in bytes; one of two families has less than a tenth of it.
const maxRecord = 16 << 10

// checkName tells whether a name can be an interface's (the kernel's dev_valid_name), so that it is one of a file too.
func checkName(name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ || name[0] == '.' || strings.ContainsAny(name, "/: \t\n\v\f\r\x00") {
		return fmt.Errorf("%.32q is no name of a network interface", name)
	}
	return nil
}

func (s *Setup) recordPath(name string) string { return filepath.Join(s.Dir, name+".json") }

// readRecord returns the empty record where there is none.
func (s *Setup) readRecord(name string) (record, error) {
	path := s.recordPath(name)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err == nil && info.Size() > maxRecord {
		err = fmt.Errorf("%s: %d bytes are too many", path, info.Size())
	}
	if err != nil {
		return record{}, fmt.Errorf("read what was done to %s: %w", name, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return record{}, fmt.Errorf("read what was done to %s: %w", name, err)
	}
	r, err := parseRecord(name, text)
	if err != nil {
		return record{}, fmt.Errorf("read what was done to %s: %s: %w", name, path, err)
	}
	return r, nil
}

// parseRecord checks what others may have written into a record: what it says is done again in reverse.
func parseRecord(name string, text []byte) (record, error) {
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return record{}, err
	}
	if r.Index < 0 {
		return record{}, fmt.Errorf("no device has the index %d", r.Index)
	}
	if r.NM != "" && r.NM != uuidOf(name) {
		return record{}, fmt.Errorf("%.64q is not the UUID of its connection", r.NM)
	}
	if r.ResolvConf != "" && !filepath.IsAbs(r.ResolvConf) {
		return record{}, fmt.Errorf("%.64q is not an absolute path", r.ResolvConf)
	}
	for _, p := range r.Own {
		if !p.IsValid() {
			return record{}, errors.New("an address is none")
		}
	}
	for _, route := range r.Routes {
		if !route.To.IsValid() {
			return record{}, errors.New("a route leads nowhere")
		}
	}
	for path, value := range r.Sysctls {
		if _, err := strconv.Atoi(value); err != nil || !isOurs(name, path) {
			return record{}, fmt.Errorf("sysctl %.64q was never %.64q", path, value)
		}
	}
	return r, nil
}

// writeRecord replaces the record in one step; one that has nothing to be reverted is removed.
func (s *Setup) writeRecord(name string, r record) error {
	path := s.recordPath(name)
	if r.empty() {
		if err := remove(path); err != nil {
			return fmt.Errorf("forget what was done to %s: %w", name, err)
		}
		return nil
	}
	text, err := json.MarshalIndent(r, "", "\t")
	if err == nil {
		err = replaceFile(path, append(text, '\n'), 0o600, nobody, nobody)
	}
	if err != nil {
		return fmt.Errorf("write down what is done to %s: %w", name, err)
	}
	return nil
}

// nobody is a user and a group that is not asked for.
const nobody = -1

// freshSuffix is that of a file that takes another's place when it is whole. A killed program leaves it behind.
const freshSuffix = ".new"

// replaceFile puts a file in the place of another in one step, when it is on the disk.
func replaceFile(path string, text []byte, mode fs.FileMode, user, group int) error {
	fresh := path + freshSuffix
	if err := remove(fresh); err != nil {
		return err
	}
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = errors.Join(f.Chmod(mode), f.Chown(user, group)) // the creation mask may have taken from the mode
	}
	if err == nil {
		err = f.Sync() // a rename may get to the disk before what it renames; what is kept of resolv.conf outlives a power cut
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return errors.Join(err, remove(fresh))
	}
	return nil
}

// remove removes a file that need not be there.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
