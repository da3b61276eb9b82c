package policy

import (
	"context"
	"fmt"
	"sync"

	"github.com/synmesh/synmesh/probe"
)

// Prober carries out one Spec, handing over every result; see engine.Engine.Do.
type Prober interface {
	Do(ctx context.Context, s probe.Spec, emit func(*probe.Result)) error
}

// Limited is a Prober that holds all that goes on at a time, together, to the ceilings.
type Limited struct {
	prober Prober

	mu    sync.Mutex
	rates map[string]float64 // SYNs a second, by the target's address
}

// Limit returns a Prober that keeps p within the ceilings.
func Limit(p Prober) *Limited {
	return &Limited{prober: p, rates: make(map[string]float64)}
}

// Do carries out the Spec, unless a target would get too much together with
// what is sent to it already.
func (l *Limited) Do(ctx context.Context, s probe.Spec, emit func(*probe.Result)) error {
	if err := l.admit(&s); err != nil {
		return err
	}
	defer l.release(&s)
	return l.prober.Do(ctx, s, emit)
}

func (l *Limited) admit(s *probe.Spec) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := Check(s); err != nil {
		return err
	}
	rate := s.Rate() * float64(1+s.Retries)
	for i, t := range s.Targets {
		if before := l.rates[t.Address()]; before+rate > MaxRate*(1+1e-9) {
			l.remove(s.Targets[:i], rate)
			return fmt.Errorf("%.4g SYNs a second to %s, which gets %.4g from this agent already; agents allow %d in all: try again when that is over, or with a longer interval",
				rate, t.Name, before, MaxRate)
		}
		l.rates[t.Address()] += rate
	}
	return nil
}

func (l *Limited) release(s *probe.Spec) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(s.Targets, s.Rate()*float64(1+s.Retries))
}

func (l *Limited) remove(targets []probe.Target, rate float64) {
	for _, t := range targets {
		address := t.Address()
		if l.rates[address] -= rate; l.rates[address] < 1e-9 {
			delete(l.rates, address)
		}
	}
}
