package main

import (
	"context"
	"time"

	"netvmd/internal/store/xenstore"
	"netvmd/internal/vif"
)

// reportTimeout is for telling the toolstack, also when all the time of the run is used up.
const reportTimeout = 3 * time.Second

// maxReport is how long a text in a node may be; XenStore holds 4096 bytes at most.
const maxReport = 512

// report tells the toolstack how it went, in the nodes that it watches. It writes nowhere if the path is not the vif's.
func report(ctx context.Context, nodes *xenstore.Client, path string, failure error) error {
	if !vif.IsNodePath(path) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
	defer cancel()
	if failure == nil {
		return nodes.Write(ctx, path+"/hotplug-status", "connected")
	}
	text := oneLine(failure)
	if err := nodes.Write(ctx, path+"/hotplug-error", text[:min(len(text), maxReport)]); err != nil {
		return err
	}
	return nodes.Write(ctx, path+"/hotplug-status", "error")
}
