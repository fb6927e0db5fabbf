package nmhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// closeGrace is how long a stuck call may take to return after its connection was closed.
const closeGrace = time.Second

var errPanicked = errors.New("gonetworkmanager panicked")

// ask runs read, which calls gonetworkmanager, and keeps what that library lacks: a deadline, and its panics
// to itself. The library's calls go over godbus's shared connection and cannot be cancelled: when ctx ends,
// that connection is closed, so that they return, and the next ask gets a fresh one.
func ask[T any](ctx context.Context, what string, read func(context.Context) (T, error)) (T, error) {
	value, err := askOnce(ctx, read)
	if isCutOff(err) && ctx.Err() == nil {
		value, err = askOnce(ctx, read) // another reader's deadline, or a new bus: the connection is fresh now
	}
	if err != nil {
		return value, fmt.Errorf("ask NetworkManager for %s: %w", what, err)
	}
	return value, nil
}

type answer[T any] struct {
	value T
	err   error
}

func askOnce[T any](ctx context.Context, read func(context.Context) (T, error)) (T, error) {
	connected := make(chan *godbus.Conn, 1)
	answered := make(chan answer[T], 1)
	go func() {
		var a answer[T]
		defer func() {
			if p := recover(); p != nil {
				a.err = fmt.Errorf("%w: %v", errPanicked, p)
			}
			answered <- a
		}()
		conn, err := godbus.SystemBus() //nolint:forbidigo // to close what gonetworkmanager is about to use
		if err != nil {
			a.err = err
			return
		}
		connected <- conn
		a.value, a.err = read(ctx)
	}()
	select {
	case a := <-answered:
		return a.value, a.err
	case <-ctx.Done():
	}
	err := fmt.Errorf("no answer in time: %w", ctx.Err())
	select {
	case conn := <-connected:
		if closeErr := conn.Close(); closeErr != nil {
			err = fmt.Errorf("%w; close the connection: %w", err, closeErr)
		}
	default: // still connecting
	}
	grace := time.NewTimer(closeGrace)
	defer grace.Stop()
	select {
	case <-answered:
	case <-grace.C:
	}
	var none T
	return none, err
}

// isVanished tells whether an object was gone when it was asked: whoever lists it announces that.
func isVanished(err error) bool {
	var refused godbus.Error
	if !errors.As(err, &refused) {
		return false
	}
	switch refused.Name {
	case busName + ".Error.UnknownObject", busName + ".Error.UnknownMethod", busName + ".Error.UnknownInterface":
		return true
	default:
		return false
	}
}

// isMalformed tells whether an error is the library's verdict on a value, and not on the way to it. The
// library has no error value for it, only this text (its utils.go), or it panics.
func isMalformed(err error) bool {
	return errors.Is(err, errPanicked) || err != nil && strings.Contains(err.Error(), "unexpected variant type")
}

// isCutOff tells whether the connection broke during a call, and not the service's answer.
func isCutOff(err error) bool {
	var refused godbus.Error
	return errors.Is(err, godbus.ErrClosed) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) ||
		errors.As(err, &refused) && refused.Name == busName+".Error.Disconnected"
}
