// Package measurement is what a measurement may look like: for the controller,
// which plans and keeps measurements, and for probectl, which sends them.
//
// Read reads a file of them, Check looks at a single one and fills in what it
// leaves out, and Format writes one down.
package measurement

import (
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// The probes a second that an agent may spend on one measurement.
const (
	DefaultBudget = 50
	MaxBudget     = 1000
)

// What the API bounds as well; see measurement.proto.
const (
	maxSelector = 1000
	maxTargets  = 10_000
)

// Prefix is what the source of every measurement's results begins with.
const Prefix = "measurements/"

// Checked is a measurement that has been checked, with nothing left out.
type Checked struct {
	Name    string
	Sources selector.Selector
	Mesh    bool
	// Probed, Between and Within are those of a mesh.
	Probed          selector.Selector
	Between, Within string
	Spec            probe.Spec // without targets, if it is a mesh
	Budget          float64    // probes a second and agent
	Expire          time.Time  // zero: never
}

// Source returns what the measurement's results are filed under.
func (c *Checked) Source() string { return Prefix + c.Name }

// Expired tells whether the measurement has ended by itself.
func (c *Checked) Expired(now time.Time) bool { return !c.Expire.IsZero() && !now.Before(c.Expire) }

// Check says what is wrong with a measurement, in one line and in the operator's
// words, or returns it checked.
func Check(m *synmeshv1.Measurement) (*Checked, error) {
	if err := selector.CheckName(m.GetName()); err != nil {
		return nil, fmt.Errorf("measurement: %w", err)
	}
	if name := m.GetName(); name == "." || name == ".." {
		return nil, fmt.Errorf("measurement: name %q: choose one with a letter or a digit", name)
	}
	c := &Checked{Name: m.GetName(), Mesh: m.GetMesh() != nil, Budget: m.GetBudget()}
	for _, fill := range []func(*synmeshv1.Measurement) error{c.pick, c.probe, c.bound} {
		if err := fill(m); err != nil {
			return nil, fmt.Errorf("measurement %q: %w", m.GetName(), err)
		}
	}
	return c, nil
}

// pick reads who probes whom.
func (c *Checked) pick(m *synmeshv1.Measurement) (err error) {
	if c.Sources, err = parseSelector("sources", m.GetSources()); err != nil {
		return err
	}
	if c.Probed, err = parseSelector("mesh", m.GetMesh().GetSelector()); err != nil {
		return err
	}
	c.Between, c.Within = m.GetMesh().GetBetween(), m.GetMesh().GetWithin()
	if c.Between != "" && c.Within != "" {
		return errors.New("mesh: between and within are both given; a mesh has one of them, or neither")
	}
	if label := c.Between + c.Within; label == selector.NameKey {
		return errors.New("mesh: name is not a label; group by one that agents have, as in between: dc")
	} else if label != "" {
		if err := selector.CheckName(label); err != nil {
			return fmt.Errorf("mesh: the label to group by: %w", err)
		}
	}
	if n := len(m.GetTargets().GetTargets()); n > maxTargets {
		return fmt.Errorf("%d targets; %d are allowed", n, maxTargets)
	}
	for _, text := range m.GetTargets().GetTargets() {
		ts, err := probe.ParseTargets(text)
		if err != nil {
			return err
		}
		c.Spec.Targets = append(c.Spec.Targets, ts...)
		if len(c.Spec.Targets) > probe.MaxTargets {
			break // Validate says so
		}
	}
	return nil
}

func parseSelector(field, text string) (selector.Selector, error) {
	if n := utf8.RuneCountInString(text); n > maxSelector {
		return selector.Selector{}, fmt.Errorf("%s: a selector of %d characters; %d are allowed", field, n, maxSelector)
	}
	return selector.Parse(text)
}

// probe reads how targets are probed.
func (c *Checked) probe(m *synmeshv1.Measurement) error {
	if _, known := synmeshv1.AddressFamily_name[int32(m.GetFamily())]; !known {
		return fmt.Errorf("family: %d is none", m.GetFamily())
	}
	if _, known := synmeshv1.Mode_name[int32(m.GetMode())]; !known {
		return fmt.Errorf("mode: %d is none", m.GetMode())
	}
	s := &c.Spec
	s.Interval, s.Timeout = orElse(m.GetInterval(), probe.DefaultInterval), orElse(m.GetTimeout(), probe.DefaultTimeout)
	s.Family, s.Mode = convert.ToFamily(m.GetFamily()), convert.ToMode(m.GetMode())
	s.Retries, s.Jitter, s.Poisson = int(m.GetRetries()), m.GetJitter(), m.GetPoisson()
	if s.Flows = int(m.GetFlows()); s.Flows == 0 {
		s.Flows = 1
	}
	check := *s
	if c.Mesh { // whoever is probed, the rest is known
		check.Targets = []probe.Target{{Name: "agent", Host: "agent", Port: 1}}
	}
	return check.Validate()
}

// bound reads how much may be probed, and until when.
func (c *Checked) bound(m *synmeshv1.Measurement) error {
	if c.Budget == 0 {
		c.Budget = DefaultBudget
	}
	switch rate := c.Spec.Rate(); {
	case math.IsNaN(c.Budget) || c.Budget < 0 || c.Budget > MaxBudget:
		return fmt.Errorf("budget %v is outside 0 to %d probes a second and agent", c.Budget, MaxBudget)
	case rate > c.Budget*(1+1e-9):
		return fmt.Errorf("one target with %d flows takes %.4g probes a second, and the budget is %.4g; lengthen the interval, or raise the budget",
			c.Spec.Flows, rate, c.Budget)
	}
	if t := m.GetExpireTime(); t != nil {
		if err := t.CheckValid(); err != nil {
			return errors.New("expire_time is no time between the years 1 and 9999")
		}
		c.Expire = t.AsTime()
	}
	return nil
}

func orElse(d *durationpb.Duration, usual time.Duration) time.Duration {
	if d == nil {
		return usual
	}
	return d.AsDuration()
}
