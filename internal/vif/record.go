package vif

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"netvmd/internal/netvm"
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
	for _, a := range []netip.Addr{s.Gateway, s.Visible, s.VisibleGateway} {
		if a.IsValid() && !a.Is4() {
			return Spec{}, fmt.Errorf("%s is no IPv4 address", a)
		}
	}
	if a := s.Gateway6; a.IsValid() && (!a.Is6() || a.Is4In6() || a.Zone() != "") {
		return Spec{}, fmt.Errorf("%s is no plain IPv6 address", a)
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

// shelf remembers records as they were read last. A record is replaced as a whole, so one whose file is the same still
// says the same.
type shelf map[string]shelved

type shelved struct {
	file os.FileInfo
	spec Spec
}

// read is Records.Read, unless the file is the one that was read before.
func (s shelf) read(r Records, name string) (Spec, error) {
	file, err := os.Stat(r.path(name))
	last, known := s[name]
	if err == nil && known && os.SameFile(file, last.file) && file.ModTime().Equal(last.file.ModTime()) && file.Size() == last.file.Size() {
		return last.spec, nil
	}
	delete(s, name)
	spec, readErr := r.Read(name)
	if err == nil && readErr == nil {
		s[name] = shelved{file, spec}
	}
	return spec, readErr
}

// all reads every record, ordered by domain and device. Those that cannot be read are broken.
func (r Records) all(remembered shelf) (specs []Spec, broken map[string]error, err error) {
	names, err := r.Names()
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(names, byAge)
	broken = map[string]error{}
	for _, name := range names {
		spec, err := remembered.read(r, name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it went meanwhile
		case err != nil:
			broken[name] = err
		default:
			specs = append(specs, spec)
		}
	}
	return specs, broken, nil
}

// Admissions are who must be able to send from where, by the records that can be read. An address belongs to the newest
// domain that has it.
func (r Records) Admissions() ([]netvm.Admission, error) {
	specs, _, err := r.all(shelf{})
	if err != nil {
		return nil, err
	}
	holders := map[netip.Addr]string{}
	for _, spec := range specs {
		for _, a := range spec.Addresses {
			holders[a] = spec.Name
		}
	}
	var out []netvm.Admission
	for addr, name := range holders {
		out = append(out, netvm.Admission{Vif: name, Addr: addr})
	}
	slices.SortFunc(out, func(a, b netvm.Admission) int { return cmp.Or(byAge(a.Vif, b.Vif), a.Addr.Compare(b.Addr)) })
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
