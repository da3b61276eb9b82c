//go:build linux

package main

import (
	"context"
	"runtime"
	"time"
)

// calmness is how much of the cores may be busy with other things before something is measured.
const calmness = 0.10

// calm waits until the machine is quiet, as long as there is patience left: a
// shared machine may never be, and then the page's load averages tell.
func (b *suite) calm(ctx context.Context) error {
	const look = 250 * time.Millisecond
	for b.patience > 0 {
		before, err := machineTime()
		if err != nil {
			return err
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		after, err := machineTime()
		if err != nil {
			return err
		}
		if busy := (after - before).Seconds() / look.Seconds() / float64(runtime.NumCPU()); busy <= calmness {
			return nil
		}
		b.patience -= look
	}
	return nil
}
