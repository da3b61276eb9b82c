package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/synmesh/synmesh/agent/policy"
	"github.com/synmesh/synmesh/probe"
)

// held returns a prober for this host: p itself for its root, as with a flood
// ping, and for anybody else one that keeps to what agents do. Whoever has
// CAP_NET_RAW could send by other means; this is no wall, but a fence.
func held(p policy.Prober, uid int) policy.Prober {
	if uid == 0 {
		return p
	}
	return fenced{policy.Limit(p, nil)}
}

type fenced struct{ policy.Prober }

// Do implements policy.Prober. A refusal is the fault of the command line.
func (f fenced) Do(ctx context.Context, s probe.Spec, emit func(*probe.Result)) error {
	err := f.Prober.Do(ctx, s, emit)
	var refused *policy.Refusal
	if errors.As(err, &refused) {
		return usage(fmt.Errorf("%w; from this host only root may go faster than agents do", err))
	}
	return err
}
