package vif

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Records are the files <runtime_dir>/vifs/<vif>.json: what each vif was brought up with. They outlive the daemon,
// and every program that sets up vifs reads and writes them.
type Records struct{ dir string }

// NewRecords returns those below a runtime folder, which need not exist yet.
func NewRecords(runtimeDir string) Records { return Records{filepath.Join(runtimeDir, "vifs")} }

// Dir is where the files are.
func (r Records) Dir() string { return r.dir }

// maxRecord is how large a record may be, in bytes; one with 16 addresses has less than a tenth of it.
const maxRecord = 16 << 10

// Read returns the record of a vif; none is an error that is fs.ErrNotExist.
func (r Records) Read(name string) (Spec, error) {
	if _, _, err := ParseName(name); err != nil {
		return Spec{}, err
	}
	path := r.path(name)
	info, err := os.Stat(path)
	if err != nil {
		return Spec{}, fmt.Errorf("record: %w", err)
	}
	if info.Size() > maxRecord {
		return Spec{}, fmt.Errorf("record %s: %d bytes are too many", path, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Spec{}, fmt.Errorf("record: %w", err)
	}
	s, err := parseRecord(name, text)
	if err != nil {
		return Spec{}, fmt.Errorf("record %s: %w", path, err)
	}
	return s, nil
}

// parseRecord checks what others may have written into a record as strictly as what comes from the store.
func parseRecord(name string, text []byte) (Spec, error) {
	var s Spec
	if err := json.Unmarshal(text, &s); err != nil {
		return Spec{}, err
	}
	domID, _, err := ParseName(name)
	if err != nil {
		return Spec{}, err
	}
	if s.Name != name || s.DomID != domID || s.Metric != metricOf(domID) {
		return Spec{}, fmt.Errorf("it is that of %q, domain %d, metric %d", s.Name, s.DomID, s.Metric)
	}
	if mac, err := parseMAC(s.MAC); err != nil || mac != s.MAC {
		return Spec{}, fmt.Errorf("mac %.64q", s.MAC)
	}
	for _, a := range s.Addresses {
		if _, err := parseAddress(a.String(), Settings{Gateway: s.Gateway, Gateway6: s.Gateway6}); err != nil {
			return Spec{}, err
		}
	}
	if len(s.Addresses) == 0 || len(s.Addresses) > maxAddresses {
		return Spec{}, fmt.Errorf("%d addresses", len(s.Addresses))
	}
	return s, nil
}

// Names lists the vifs that have a record.
func (r Records) Names() ([]string, error) {
	entries, err := os.ReadDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	var out []string
	for _, e := range entries {
		name, isRecord := cutExtension(e.Name())
		if _, _, err := ParseName(name); isRecord && err == nil {
			out = append(out, name)
		}
	}
	return out, nil
}

func cutExtension(file string) (string, bool) {
	extension := filepath.Ext(file)
	return file[:len(file)-len(extension)], extension == ".json"
}

// write replaces the record in one step.
func (r Records) write(s Spec) error {
	text, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return fmt.Errorf("record of %s: %w", s.Name, err)
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return fmt.Errorf("record of %s: %w", s.Name, err)
	}
	// Only one program at a time has the lock of this vif, so that the name is its own.
	fresh := filepath.Join(r.dir, "."+s.Name+".new")
	if err := os.WriteFile(fresh, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("record of %s: %w", s.Name, err)
	}
	if err := os.Rename(fresh, r.path(s.Name)); err != nil {
		return errors.Join(fmt.Errorf("record of %s: %w", s.Name, err), os.Remove(fresh))
	}
	return nil
}

// remove deletes the record, and what a program that was killed while it wrote one left.
func (r Records) remove(name string) error {
	for _, path := range []string{r.path(name), filepath.Join(r.dir, "."+name+".new")} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("record of %s: %w", name, err)
		}
	}
	return nil
}

func (r Records) path(name string) string { return filepath.Join(r.dir, name+".json") }
