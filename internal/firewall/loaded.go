package firewall

import (
	"context"
	"slices"
)

// Loaded implements Backend.
func (b *nftBackend) Loaded(ctx context.Context) (bool, error) {
	state, err := b.read(ctx)
	if err != nil {
		return false, err
	}
	return len(state.table) > 0, nil
}

// Loaded implements Backend.
func (b *iptBackend) Loaded(ctx context.Context) (bool, error) {
	states, err := b.read(ctx)
	return slices.ContainsFunc(states, func(s *iptState) bool { return len(s.table) > 0 }), err
}
