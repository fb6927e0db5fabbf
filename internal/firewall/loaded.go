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

// Loaded implements Backend.
func (b *iptBackend) Loaded(ctx context.Context) (bool, error) {
	for _, f := range []*iptFamily{b.v4, b.v6} {
		if f == nil {
			continue
		}
		state, err := f.read(ctx)
		if err != nil || len(state.table) > 0 {
			return err == nil, err
		}
	}
	return false, nil
}
