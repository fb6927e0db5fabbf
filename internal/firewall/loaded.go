package firewall

import "context"

// Loaded implements Backend.
func (b *nftBackend) Loaded(ctx context.Context) (bool, error) {
	state, err := b.read(ctx)
	if err != nil {
		return false, err
	}
	return len(state.table) > 0, nil
}
