package catalogue

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/measurement"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// maxStored is how many measurements can be stored.
const maxStored = 1000

// Change is what happens to one measurement. Before is nil if it is new, After
// if it is removed; they are equal if it stays as it is.
type Change struct{ Before, After *synmeshv1.Measurement }

// Name returns the measurement's name.
func (c Change) Name() string {
	if c.After == nil {
		return c.Before.GetName()
	}
	return c.After.GetName()
}

// Same tells whether nothing changes.
func (c Change) Same() bool {
	return c.Before != nil && c.After != nil && proto.Equal(c.Before, c.After)
}

// Compare returns what Apply would do, in the order of names. With prune, all
// that is stored and not among the measurements is removed.
func (c *Catalogue) Compare(ms []*synmeshv1.Measurement, prune bool) ([]Change, error) {
	all, err := c.All()
	if err != nil {
		return nil, err
	}
	before := make(map[string]Entry)
	for _, e := range all {
		before[e.GetName()] = e
	}
	seen := make(map[string]bool)
	var changes []Change
	stored := 0
	for _, m := range ms {
		if _, err := measurement.Check(m); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		name := m.GetName()
		if seen[name] {
			return nil, fmt.Errorf("%w: measurement %q is there twice", ErrInvalid, name)
		}
		seen[name] = true
		change := Change{before[name].Measurement, m}
		if before[name].ReadOnly && !change.Same() {
			return nil, fmt.Errorf("measurement %q: %w", name, ErrReadOnly)
		}
		changes = append(changes, change)
		stored++
	}
	for _, e := range all {
		switch {
		case seen[e.GetName()] || e.ReadOnly:
		case prune:
			changes = append(changes, Change{Before: e.Measurement})
		default:
			stored++
		}
	}
	if stored > maxStored {
		return nil, fmt.Errorf("%w: there would be %d; %d are allowed", ErrInvalid, stored, maxStored)
	}
	slices.SortFunc(changes, func(a, b Change) int { return cmp.Compare(a.Name(), b.Name()) })
	return changes, nil
}

// Apply stores measurements, each in the place of the one of its name, all or
// none, and returns what it has done, as Compare does.
func (c *Catalogue) Apply(ctx context.Context, actor identity.Identity, ms []*synmeshv1.Measurement, prune bool) ([]Change, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	changes, err := c.Compare(ms, prune)
	if err != nil {
		return nil, err
	}
	var put []*synmeshv1.Measurement
	var remove []string
	for _, change := range changes {
		switch {
		case change.After == nil:
			remove = append(remove, change.Name())
		case !change.Same():
			put = append(put, change.After)
		}
	}
	return changes, c.change(ctx, actor, put, remove)
}

// Delete removes measurements, all or none.
func (c *Catalogue) Delete(ctx context.Context, actor identity.Identity, names []string) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	all, err := c.All()
	if err != nil {
		return err
	}
	for _, name := range names {
		i := slices.IndexFunc(all, func(e Entry) bool { return e.GetName() == name })
		if i < 0 {
			return fmt.Errorf("measurement %q: %w", name, ErrNotFound)
		}
		if all[i].ReadOnly {
			return fmt.Errorf("measurement %q: %w", name, ErrReadOnly)
		}
	}
	names = slices.Clone(names)
	slices.Sort(names)
	return c.change(ctx, actor, nil, slices.Compact(names))
}

func (c *Catalogue) change(ctx context.Context, actor identity.Identity, put []*synmeshv1.Measurement, remove []string) error {
	switch {
	case len(put)+len(remove) == 0:
		return nil
	case c.store == nil:
		return ErrNoStore
	}
	return c.store.ChangeMeasurements(ctx, actor, put, remove)
}
