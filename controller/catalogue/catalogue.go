// Package catalogue knows what there is to measure: the measurements of the
// file that the controller was started with, which nobody changes while it
// runs, and those that people have stored since.
//
// Begin with New. Checked is what is to be planned, All what is to be shown.
package catalogue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/measurement"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Store keeps measurements. Those it gives back are not changed by anybody.
type Store interface {
	// Measurements returns all, and a number that is another after every change.
	Measurements() ([]*synmeshv1.Measurement, uint64, error)
	// ChangeMeasurements stores some in the place of those of their names, and
	// removes others: all of it durably, or nothing.
	ChangeMeasurements(ctx context.Context, actor identity.Identity, put []*synmeshv1.Measurement, remove []string) error
	// Changed returns a channel that is closed at the next change. Take it
	// before asking for Measurements.
	Changed() <-chan struct{}
}

// What can be wrong with a change.
var (
	ErrInvalid  = errors.New("the measurements cannot be taken")
	ErrReadOnly = errors.New("it comes from the file that the controller was started with; change it there")
	ErrNotFound = errors.New("no such measurement; see probectl get measurements")
	ErrNoStore  = errors.New("this controller stores no measurements; write them into the file of its --measurements")
)

// Entry is a measurement of the catalogue.
type Entry struct {
	*synmeshv1.Measurement
	ReadOnly bool // from the file
}

// Catalogue is safe for concurrent use.
type Catalogue struct {
	store Store
	fixed []Entry

	changing sync.Mutex // one change at a time, so that what it tells is what it did

	mu       sync.Mutex
	revision uint64
	known    bool // revision, entries and checked are those of the store
	entries  []Entry
	checked  []*measurement.Checked
	broken   error
}

// New returns the catalogue of a file's measurements, and of a store's; nil if
// there is none.
func New(fixed []*synmeshv1.Measurement, store Store) *Catalogue {
	c := &Catalogue{store: store}
	for _, m := range fixed {
		c.fixed = append(c.fixed, Entry{m, true})
	}
	return c
}

// Changed returns a channel that is closed at the next change. Take it before
// asking for anything else.
func (c *Catalogue) Changed() <-chan struct{} {
	if c.store == nil {
		return nil // never
	}
	return c.store.Changed()
}

// All returns all measurements in the order of their names.
func (c *Catalogue) All() ([]Entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.read(); err != nil {
		return nil, err
	}
	return c.entries, nil
}

// Checked returns the measurements to plan, in the order of their names. What
// cannot be planned, because an older program took what this one does not, is
// left out, and the error says so.
func (c *Catalogue) Checked() ([]*measurement.Checked, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.read(); err != nil {
		return c.checked, err
	}
	return c.checked, c.broken
}

// read asks the store if anything has changed. The lock is held.
func (c *Catalogue) read() error {
	entries := slices.Clone(c.fixed)
	var revision uint64
	if c.store != nil {
		stored, now, err := c.store.Measurements()
		if err != nil {
			return fmt.Errorf("the stored measurements cannot be read: %w", err)
		}
		if c.known && now == c.revision {
			return nil
		}
		revision = now
		for _, m := range stored {
			if !c.isFixed(m.GetName()) { // it has come into the file since
				entries = append(entries, Entry{m, false})
			}
		}
	} else if c.known {
		return nil
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.GetName(), b.GetName()) })
	c.entries, c.checked, c.broken = entries, nil, nil
	for _, e := range entries {
		checked, err := measurement.Check(e.Measurement)
		if err != nil {
			c.broken = errors.Join(c.broken, err)
			continue
		}
		c.checked = append(c.checked, checked)
	}
	c.revision, c.known = revision, true
	return nil
}

func (c *Catalogue) isFixed(name string) bool {
	return slices.ContainsFunc(c.fixed, func(e Entry) bool { return e.GetName() == name })
}
