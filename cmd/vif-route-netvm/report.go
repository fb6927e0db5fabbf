package main

import (
	"context"
	"fmt"
	"time"

	"netvmd/internal/store/xenstore"
	"netvmd/internal/vif"
)

// reportTimeout is for telling the toolstack, also when all the time of the run is used up.
const reportTimeout = 3 * time.Second

// maxReport is how long a text in a node may be; XenStore holds 4096 bytes at most.
const maxReport = 512

// reportSuccess tells the toolstack, which waits for it.
func reportSuccess(ctx context.Context, nodes *xenstore.Client, path string) error {
	ctx, cancel := reportContext(ctx)
	defer cancel()
	return nodes.Write(ctx, path+"/hotplug-status", "connected")
}

// reportFailure tells the toolstack what went wrong: libxl shows the text. It writes nowhere if the path is not a vif's.
func reportFailure(ctx context.Context, xenstorePath, path string, failure error) error {
	if !vif.IsNodePath(path) {
		return fmt.Errorf("XENBUS_PATH: %.128q is no folder of a vif's nodes", path)
	}
	ctx, cancel := reportContext(ctx)
	defer cancel()
	nodes, err := xenstore.Open(ctx, xenstorePath)
	if err != nil {
		return err
	}
	defer nodes.Close()
	text := oneLine(failure)
	if err := nodes.Write(ctx, path+"/hotplug-error", text[:min(len(text), maxReport)]); err != nil {
		return err
	}
	return nodes.Write(ctx, path+"/hotplug-status", "error")
}

// reportContext lasts a little longer than the run, whose time may be used up.
func reportContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
}
