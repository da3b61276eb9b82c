package apitest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Measurements is a store of measurements in memory; see catalogue.Store.
type Measurements struct {
	mu       sync.Mutex
	stored   []*synmeshv1.Measurement
	revision uint64
	changed  chan struct{}
	// Err is what reading and changing come to, if not nil.
	Err error
}

// NewMeasurements returns a store of these.
func NewMeasurements(ms ...*synmeshv1.Measurement) *Measurements {
	return &Measurements{stored: ms, changed: make(chan struct{})}
}

// Measurements implements catalogue.Store.
func (s *Measurements) Measurements() ([]*synmeshv1.Measurement, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.stored), s.revision, s.Err
}

// ChangeMeasurements implements catalogue.Store.
func (s *Measurements) ChangeMeasurements(_ context.Context, _ identity.Identity, put []*synmeshv1.Measurement, remove []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Err != nil {
		return s.Err
	}
	for i, name := range remove {
		there := slices.ContainsFunc(s.stored, func(m *synmeshv1.Measurement) bool { return m.GetName() == name })
		if !there || slices.Contains(remove[:i], name) {
			return fmt.Errorf("measurement %q is not stored", name)
		}
	}
	s.stored = slices.DeleteFunc(slices.Clone(s.stored), func(m *synmeshv1.Measurement) bool {
		return slices.Contains(remove, m.GetName()) ||
			slices.ContainsFunc(put, func(p *synmeshv1.Measurement) bool { return p.GetName() == m.GetName() })
	})
	for _, m := range put {
		s.stored = append(s.stored, proto.CloneOf(m))
	}
	s.revision++
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// Changed implements catalogue.Store.
func (s *Measurements) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}
