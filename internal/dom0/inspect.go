package dom0

import (
	"errors"
	"io/fs"
)

// Situation is what the journal tells of dom0.
type Situation struct {
	Up     bool   // dom0 is on the network, or a run for it was not ended
	Stale  bool   // that was before a reboot: resolv.conf alone is left to be put back
	Netvm  string // the domain's name; "" = dom0 got no card yet
	Paused int    // domains that stand paused for it
}

// MAC is that of dom0's card while it is on the network.
const MAC = mac

// Inspect reads the journal and changes nothing. root stands before /proc; "" but in tests.
func Inspect(stateDir, root string) (Situation, error) {
	j, err := openJournal(JournalPath(stateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return Situation{}, nil
	}
	if err != nil {
		return Situation{}, err
	}
	defer func() { _ = j.close() }() // nothing was written
	boot, err := bootID(root)
	if err != nil {
		return Situation{}, err
	}
	s := Situation{Up: j.Boot == boot, Stale: j.Boot != boot}
	for i, step := range j.steps {
		switch step := step.(type) {
		case pause:
			if !j.undone[i] {
				s.Paused++
			}
		case attach:
			s.Netvm = step.Backend.Name
		}
	}
	return s, nil
}
