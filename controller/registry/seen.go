package registry

import (
	"fmt"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

// Seen is what an agent said of itself that had a session.
type Seen struct {
	Name      string            `json:"-"`
	Labels    map[string]string `json:"labels,omitempty"`
	Version   string            `json:"version,omitempty"`
	Responder string            `json:"responder,omitempty"`
	Stamping  string            `json:"stamping,omitempty"`
	// Left is when its session ended; zero: it had one.
	Left time.Time `json:"left,omitzero"`
}

// Seen returns what Remember keeps, in the order of names.
func (r *Registry) Seen() (all []Seen, err error) {
	err = r.view(func(t *tx) error {
		return t.eachSeen(func(name string, s *Seen) error {
			s.Name = name
			all = append(all, *s)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("registry: agents seen: %w", err)
	}
	return all, nil
}

// Remember keeps agents in the place of those of their names, and forgets others: all of it
// durably, or nothing. Nobody is let in for it, so the audit log does not tell.
func (r *Registry) Remember(seen []Seen, forget []string) error {
	return r.update(func(t *tx) error {
		b, err := t.CreateBucketIfNotExists(seenBucket)
		if err != nil {
			return err
		}
		for _, name := range forget {
			if err := b.Delete([]byte(name)); err != nil {
				return err
			}
		}
		for i := range seen {
			if err := identity.CheckName(seen[i].Name); err != nil {
				return fmt.Errorf("%w: agent %w", ErrInvalid, err)
			}
			if err := put(b, seen[i].Name, &seen[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// eachSeen calls fn for all; before the first, there is no bucket.
func (t *tx) eachSeen(fn func(name string, s *Seen) error) error {
	b := t.Bucket(seenBucket)
	if b == nil {
		return nil
	}
	return each(b, fn)
}
