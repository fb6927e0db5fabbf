package tray

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// reportDeadline bounds the making of a report: netvmctl asks the machine many things.
	reportDeadline = time.Minute
	// longestReport is how many bytes of a report are taken. One of 300 vifs has less than 200,000.
	longestReport = 1 << 20
	// longestComplaint is how many bytes are read of what netvmctl says of its failure.
	longestComplaint = 4 << 10
	// endGrace is how long netvmctl's outputs are waited for after it was ended.
	endGrace = time.Second
	// mostNames is how many files of the same second are tried.
	mostNames = 10
)

// report runs netvmctl report.
func (e *errands) report(ctx context.Context) (string, error) {
	path, err := find(reporter)
	if err != nil {
		return "", fmt.Errorf("%s is not installed", reporter)
	}
	ctx, cancel := context.WithTimeout(ctx, reportDeadline)
	defer cancel()
	text, complaint := bounded{most: longestReport, beyond: cancel}, bounded{most: longestComplaint, beyond: func() {}}
	cmd := exec.CommandContext(ctx, path, "report")
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = e.environ, &text, &complaint, endGrace
	err = cmd.Run()
	first, _, _ := strings.Cut(complaint.kept.String(), "\n")
	switch {
	case text.full:
		return "", fmt.Errorf("%s report is longer than %d bytes", reporter, longestReport)
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s report took longer than %s", reporter, reportDeadline)
	case err != nil && first != "":
		return "", fmt.Errorf("%s: %.200q", failure(reporter+" report", err), first)
	case err != nil:
		return "", errors.New(failure(reporter+" report", err))
	}
	return text.kept.String(), nil
}

// bounded keeps the first bytes of what is written to it. The buffer is not embedded, as its ReadFrom would know no bound.
type bounded struct {
	kept   bytes.Buffer
	most   int
	beyond func() // called when something is left out
	full   bool   // something was
}

func (b *bounded) Write(p []byte) (int, error) {
	room := b.most - b.kept.Len()
	if len(p) <= room {
		return b.kept.Write(p)
	}
	b.full = true
	b.beyond()
	b.kept.Write(p[:room])
	return len(p), nil
}

// copyReport puts a report on the clipboard.
func (e *errands) copyReport(ctx context.Context) (string, error) {
	text, err := e.report(ctx)
	if err != nil {
		return "", err
	}
	e.copy(text)
	return fmt.Sprintf("the report is on the clipboard: %d lines", strings.Count(text, "\n")), nil
}

// saveReport puts a report into the home folder.
func (e *errands) saveReport(ctx context.Context) (string, error) {
	text, err := e.report(ctx)
	if err != nil {
		return "", err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("save the report: %w", err)
	}
	path, err := writeNew(home, "netvm-report-"+time.Now().Format("20060102-150405"), text)
	if err != nil {
		return "", fmt.Errorf("save the report: %w", err)
	}
	return "the report is in " + path, nil
}

// writeNew writes a file that only its owner can read, and never over another.
func writeNew(folder, name, text string) (string, error) {
	path := filepath.Join(folder, name+".txt")
	file, err := create(path)
	for n := 2; errors.Is(err, fs.ErrExist) && n <= mostNames; n++ {
		path = filepath.Join(folder, fmt.Sprintf("%s-%d.txt", name, n))
		file, err = create(path)
	}
	if err != nil {
		return "", err
	}
	_, err = io.WriteString(file, text)
	if err = errors.Join(err, file.Close()); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return path, nil
}

func create(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}
