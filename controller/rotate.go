package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/internal/identity"
)

const (
	// settleFor is how long a fleet takes to come back to a controller that was started again.
	// Before that it is not known whose turn it is to change keys.
	settleFor = time.Minute
	// lookEvery is how often it is looked, while keys are being changed, who has done so.
	lookEvery = 200 * time.Millisecond
	// retryEvery is how often what could not be stored is tried again.
	retryEvery = 5 * time.Second
)

// Change implements identities.Keys: it has the keys of the gossip changed, which is
// in the audit log before it begins, and survives a crash from then on. If
// they are being changed already, they are again after that, for who is to be kept out may
// have the new ones, too.
func (h *herald) Change(actor identity.Identity, why string) (wait func(context.Context) (int, error), err error) {
	if err := h.record(actor, "rotate gossip keys", "fleet/"+h.fleet, why); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	next := h.kept
	next.Wanted = true
	if err := h.keep(next); err != nil {
		return nil, err
	}
	h.asked++
	number := h.asked
	select {
	case h.kick <- struct{}{}:
	default:
	}
	return func(ctx context.Context) (int, error) { return h.wait(ctx, number) }, nil
}

// wait returns when a change has been made.
func (h *herald) wait(ctx context.Context, number uint64) (int, error) {
	for {
		h.mu.Lock()
		served, done := h.served, h.done
		h.mu.Unlock()
		if served >= number {
			_, abreast := h.behind(time.Now())
			return abreast, nil
		}
		select {
		case <-done:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-h.stopped:
			return 0, errors.New("the controller is stopping; it goes on with it when it is started again")
		}
	}
}

// run changes the keys when that is wanted, and goes on where the process before was
// stopped. use is for this controller's own gossip.
func (h *herald) run(ctx context.Context, use func(gossip.Keys) error) error {
	defer close(h.stopped)
	settled := time.Now().Add(h.settle)
	var serving uint64 // the last change asked for that the one under way is for
	for {
		h.mu.Lock()
		walking, wanted := len(h.kept.Steps) > 0, h.kept.Wanted
		if !walking && wanted {
			serving = h.asked
		}
		h.mu.Unlock()
		switch {
		case walking:
			if !h.all(ctx, settled) {
				return nil
			}
		case !wanted:
			select {
			case <-h.kick:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		last, err := h.step()
		if err != nil {
			h.log.Error("the keys of the gossip cannot be changed; trying again", "reason", err)
			if !sleep(ctx, retryEvery) {
				return nil
			}
			continue
		}
		if err := use(h.keys()); err != nil {
			return err
		}
		if !last {
			continue
		}
		if !h.all(ctx, settled) {
			return nil
		}
		h.mu.Lock()
		h.served = max(h.served, serving)
		close(h.done)
		h.done = make(chan struct{})
		h.mu.Unlock()
		h.log.Info("the keys of the gossip were changed")
	}
}

// step takes the next set of keys; the first of them has a new one. It tells whether it was the last.
func (h *herald) step() (last bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := h.kept
	if len(next.Steps) == 0 {
		steps, err := next.Keys.Rotate(newGossipKey())
		if err != nil {
			return false, fmt.Errorf("begin: %w", err)
		}
		next.Steps, next.Wanted = steps[:], false
	}
	next.Keys, next.Steps = next.Steps[0], next.Steps[1:]
	return len(next.Steps) == 0, h.keep(next)
}

func (h *herald) keys() gossip.Keys {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kept.Keys
}

// all waits until all who are connected use the files of now; false if ctx ends before.
func (h *herald) all(ctx context.Context, settled time.Time) bool {
	if !sleep(ctx, time.Until(settled)) {
		return false
	}
	for {
		behind, _ := h.behind(time.Now())
		if len(behind) == 0 {
			return ctx.Err() == nil
		}
		if !sleep(ctx, lookEvery) {
			return false
		}
	}
}

// sleep waits; false if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
