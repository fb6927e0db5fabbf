package vif

import (
	"context"
	"fmt"
	"slices"

	"netvmd/internal/netvm"
)

// Inspection is what one look at all vifs found.
type Inspection struct {
	Vifs   []netvm.Vif         // that have a record and a device, ordered by domain and device; their state is what was found
	Faults map[string][]string // by the name of the vif, what is not as its record says, in words
	// Unrecorded are devices with the name of a vif that have no record: another program set them up, or none.
	Unrecorded []string
}

// Inspect compares the records of the vifs with the kernel and the firewall once, and changes nothing. A vif that comes or
// goes just then may show as damaged.
func Inspect(ctx context.Context, runtimeDir string, gate Gate) (Inspection, error) {
	k, err := openKernel()
	if err != nil {
		return Inspection{}, err
	}
	defer k.Close()
	setup := &Setup{Gate: gate, records: NewRecords(runtimeDir), kernel: k}
	l, err := setup.survey(ctx, shelf{})
	if err != nil {
		return Inspection{}, fmt.Errorf("look at the vifs: %w", err)
	}
	return l.inspect(), nil
}

func (l *land) inspect() Inspection {
	out := Inspection{Faults: map[string][]string{}}
	recorded := map[string]bool{}
	for _, spec := range l.records {
		recorded[spec.Name] = true
		if l.devices[spec.Name] == nil {
			continue
		}
		vif := spec.Vif
		vif.State = netvm.VifUp
		if faults := l.drift(spec).all(); len(faults) > 0 {
			vif.State, out.Faults[spec.Name] = netvm.VifDegraded, faults
		}
		out.Vifs = append(out.Vifs, vif)
	}
	for name, err := range l.broken {
		recorded[name], out.Faults[name] = true, []string{"its record is not understood: " + oneLine(err)}
	}
	for _, name := range l.gone() {
		out.Faults[name] = append(out.Faults[name], "its device is gone, and it was not taken down")
	}
	for name := range l.devices {
		if !recorded[name] {
			out.Unrecorded = append(out.Unrecorded, name)
		}
	}
	slices.SortFunc(out.Unrecorded, byAge)
	return out
}
