package firewall

import (
	"context"
	"errors"
	"log/slog"
)

func newIPTables(_ context.Context, _ string, _ *slog.Logger) (Backend, error) {
	return nil, errors.New("iptables: not built into this version")
}
