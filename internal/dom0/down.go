package dom0

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// Down takes back what Up did, in reverse, and no more. It may be repeated.
func Down(ctx context.Context, o Options) error {
	t, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer t.close()
	j, err := openJournal(JournalPath(o.Config.StateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return t.say("nothing to undo")
	}
	if err != nil {
		return err
	}
	defer func() { _ = j.close() }() // each line is on the disk
	boot, err := bootID(o.Root)
	if err != nil {
		return err
	}
	if j.Boot != boot {
		j.keepLasting()
	}
	if o.DryRun {
		return t.rehearseDown(j)
	}
	if err := t.undoAll(ctx, j); err != nil {
		return fmt.Errorf("%w; run it again", err)
	}
	return t.say("dom0 is off the network")
}

// keepLasting leaves the steps that a reboot has not taken back.
func (h *history) keepLasting() {
	for i, s := range h.steps {
		if !s.lasts() {
			h.undone[i] = true
		}
	}
}

// undoAll takes back what is not, and deletes the journal when all is. Domains stand paused as long as dom0 has its card:
// that is what they are paused for.
func (t *tool) undoAll(ctx context.Context, j *journal) error {
	var failures []error
	attached := false
	for i := len(j.steps) - 1; i >= 0; i-- {
		s := j.steps[i]
		if _, isPause := s.(pause); j.undone[i] || isPause && attached {
			continue
		}
		if err := t.undo(ctx, j, i); err != nil {
			failures = append(failures, err)
			_, isCard := s.(attach)
			attached = attached || isCard
		}
	}
	if attached {
		failures = append(failures, errors.New("the other domains stand paused, as dom0 still has its card"))
	}
	if len(failures) > 0 {
		return errors.Join(failures...)
	}
	return j.remove()
}

func (t *tool) undo(ctx context.Context, j *journal, number int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s := j.steps[number]
	untold := t.say("%s", s.reversal())
	if err := s.undo(ctx, t); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", s.reversal(), err), untold)
	}
	return j.undo(number)
}

func (t *tool) rehearseDown(j *journal) error {
	number := 0
	for i := len(j.steps) - 1; i >= 0; i-- {
		if j.undone[i] {
			continue
		}
		number++
		if err := t.say("%d. %s", number, j.steps[i].reversal()); err != nil {
			return err
		}
	}
	if number == 0 {
		return t.say("nothing to undo")
	}
	return nil
}
