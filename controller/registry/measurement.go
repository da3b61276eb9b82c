package registry

import (
	"context"
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Bounds of what people may store.
const (
	maxMeasurements    = 10_000
	maxMeasurementSize = 1 << 20
)

// measurements are what people have stored, as of a revision.
type measurements struct {
	list     []*synmeshv1.Measurement // not changed once it is here
	revision uint64
}

// Measurements returns the measurements that people have stored, in the order
// of their names, and a number that is another after every change. Nobody may
// change what it returns.
func (r *Registry) Measurements() ([]*synmeshv1.Measurement, uint64, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.measurements.list, r.measurements.revision, nil
}

// ChangeMeasurements stores some measurements in the place of those of their
// names, and removes others: all of it durably, or nothing.
func (r *Registry) ChangeMeasurements(ctx context.Context, actor identity.Identity, put []*synmeshv1.Measurement, remove []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.update(func(t *tx) error {
		for _, name := range remove {
			if err := t.removeMeasurement(actor, name); err != nil {
				return err
			}
		}
		for _, m := range put {
			if err := t.putMeasurement(actor, m); err != nil {
				return err
			}
		}
		revision, err := t.revision()
		if err != nil {
			return err
		}
		if err := t.Bucket(metaBucket).Put(revisionKey, numberKey(revision+1)); err != nil {
			return err
		}
		now, err := t.readMeasurements()
		if err != nil {
			return err
		}
		if len(now.list) > maxMeasurements {
			return fmt.Errorf("%w: there would be %d measurements; %d are allowed", ErrTooMany, len(now.list), maxMeasurements)
		}
		t.measurements = &now
		return nil
	})
}

func (t *tx) putMeasurement(actor identity.Identity, m *synmeshv1.Measurement) error {
	if err := identity.CheckName(m.GetName()); err != nil {
		return fmt.Errorf("%w: measurement %w", ErrInvalid, err)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("%w: measurement %s: %w", ErrInvalid, m.GetName(), err)
	}
	if len(data) > maxMeasurementSize {
		return fmt.Errorf("%w: measurement %s has %d bytes; %d are allowed", ErrInvalid, m.GetName(), len(data), maxMeasurementSize)
	}
	if err := t.Bucket(measurementsBucket).Put([]byte(m.GetName()), data); err != nil {
		return err
	}
	return t.audit(actor, "set measurement", "measurements/"+m.GetName(), "")
}

func (t *tx) removeMeasurement(actor identity.Identity, name string) error {
	b := t.Bucket(measurementsBucket)
	if b.Get([]byte(name)) == nil {
		return fmt.Errorf("measurement %.80q: %w", name, ErrNotFound)
	}
	if err := b.Delete([]byte(name)); err != nil {
		return err
	}
	return t.audit(actor, "delete measurement", "measurements/"+name, "")
}

func (t *tx) readMeasurements() (m measurements, err error) {
	if m.revision, err = t.revision(); err != nil {
		return m, err
	}
	err = t.Bucket(measurementsBucket).ForEach(func(k, v []byte) error {
		one := &synmeshv1.Measurement{}
		if err := proto.Unmarshal(v, one); err != nil {
			return fmt.Errorf("%w: measurement %q: %w", ErrDamaged, k, err)
		}
		m.list = append(m.list, one)
		return nil
	})
	return m, err
}

func (t *tx) revision() (uint64, error) {
	v := t.Bucket(metaBucket).Get(revisionKey)
	switch len(v) {
	case 0:
		return 0, nil
	case 8:
		return binary.BigEndian.Uint64(v), nil
	}
	return 0, fmt.Errorf("%w: the revision of the measurements has %d bytes", ErrDamaged, len(v))
}
