package main

import (
	"context"
	"slices"
	"sync"

	"netvmd/internal/config"
	"netvmd/internal/engine"
	"netvmd/internal/override"
	"netvmd/internal/store"
	"netvmd/internal/vif"
	"netvmd/nmhook"
)

// settings brings together what the configuration, the store and callers on the bus say, and tells the engine.
type settings struct {
	store     *store.Follower
	overrides *override.Stack
	vifs      *vif.Census
	uplinks   *nmhook.Watcher
	engine    *engine.Engine // set before anything but merged is called

	mu   sync.Mutex // held while the engine is told, so that the newest is told last
	conf config.Config
}

// follow tells the engine of every change of the store's until ctx ends.
func (s *settings) follow(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.store.Changed():
		}
		s.tell()
	}
}

// tell gives the engine what all say now.
func (s *settings) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.configure()
}

// configure has everybody go by what all say now. The caller holds mu.
func (s *settings) configure() {
	now := s.merged()
	s.uplinks.Serve(now.PassThrough)
	s.engine.Configure(now)
}

// Refresh implements engine.Source.
func (s *settings) Refresh(ctx context.Context) error {
	err := s.store.Refresh(ctx)
	s.tell()
	return err
}

// reload puts another configuration in force.
func (s *settings) reload(conf config.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conf = conf
	s.configure()
	s.vifs.Configure(s.onlyWarn())
}

// onlyWarn: what others changed is said, and left.
func (s *settings) onlyWarn() bool { return s.conf.Firewall.OnDrift == config.Warn }

// merged is what the engine goes by.
func (s *settings) merged() engine.Settings {
	fromStore, problems := s.store.Take()
	return engine.Settings{
		Virtual:     s.conf.DNS.VirtualOr(fromStore.Virtual),
		Servers:     s.conf.DNS.Servers,
		Source:      string(s.conf.DNS.Source),
		Overrides:   s.overrides.List(),
		PassThrough: fromStore.PassThrough,
		Above:       fromStore.Resolvers,
		NextGateway: fromStore.NextGateway,
		OnlyWarn:    s.onlyWarn(),
		Problems:    slices.Concat(problems, s.overrides.Problems()),
	}
}
