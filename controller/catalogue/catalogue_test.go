package catalogue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func mesh(name, selector string) *synmeshv1.Measurement {
	return &synmeshv1.Measurement{Name: name, Destination: &synmeshv1.Measurement_Mesh{Mesh: &synmeshv1.Mesh{Selector: selector}}}
}

// names are the measurements of a catalogue, with a star where they are read-only.
func names(t *testing.T, c *Catalogue) string {
	t.Helper()
	all, err := c.All()
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, e := range all {
		text := e.GetName() + ":" + e.GetMesh().GetSelector()
		if e.ReadOnly {
			text += "*"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, " ")
}

func show(changes []Change) string {
	var texts []string
	for _, c := range changes {
		switch {
		case c.Before == nil:
			texts = append(texts, "+"+c.Name())
		case c.After == nil:
			texts = append(texts, "-"+c.Name())
		case c.Same():
			texts = append(texts, "="+c.Name())
		default:
			texts = append(texts, "~"+c.Name())
		}
	}
	return strings.Join(texts, " ")
}

func TestTheFileCountsBeforeTheStore(t *testing.T) {
	c := New([]*synmeshv1.Measurement{mesh("b", "file")}, apitest.NewMeasurements(mesh("c", ""), mesh("b", "store"), mesh("a", "")))
	if got := names(t, c); got != "a: b:file* c:" {
		t.Errorf("got %s", got)
	}
	checked, err := c.Checked()
	if err != nil || len(checked) != 3 || checked[1].Probed.String() != "file" {
		t.Errorf("got %v and %v", checked, err)
	}
}

func TestWhatApplyDoes(t *testing.T) {
	tests := []struct {
		name        string
		given       []*synmeshv1.Measurement
		prune       bool
		want, after string
	}{
		{"nothing at all", nil, false, "", "a: b: f:*"},
		{"one more", []*synmeshv1.Measurement{mesh("c", "")}, false, "+c", "a: b: c: f:*"},
		{"one that is as it was", []*synmeshv1.Measurement{mesh("a", "")}, false, "=a", "a: b: f:*"},
		{"one that is another", []*synmeshv1.Measurement{mesh("a", "x")}, false, "~a", "a:x b: f:*"},
		{"the changes come in order", []*synmeshv1.Measurement{mesh("z", ""), mesh("b", "y"), mesh("a", "")}, false, "=a ~b +z", "a: b:y f:* z:"},
		{"what is not given is pruned", []*synmeshv1.Measurement{mesh("b", "")}, true, "-a =b", "b: f:*"},
		{"all is pruned", nil, true, "-a -b", "f:*"},
		{"one of the file may be given as it is", []*synmeshv1.Measurement{mesh("f", "")}, false, "=f", "a: b: f:*"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := New([]*synmeshv1.Measurement{mesh("f", "")}, apitest.NewMeasurements(mesh("a", ""), mesh("b", "")))
			changes, err := c.Compare(tt.given, tt.prune)
			if got := show(changes); err != nil || got != tt.want || names(t, c) != "a: b: f:*" {
				t.Errorf("Compare: got %s and %v, and there is %s; want %s and no change", got, err, names(t, c), tt.want)
			}
			changes, err = c.Apply(t.Context(), identity.Identity{}, tt.given, tt.prune)
			if got := show(changes); err != nil || got != tt.want || names(t, c) != tt.after {
				t.Errorf("Apply: got %s and %v, and there is %s; want %s and %s", got, err, names(t, c), tt.want, tt.after)
			}
		})
	}
}

func TestWhatCannotBeDoneChangesNothing(t *testing.T) {
	many := make([]*synmeshv1.Measurement, maxStored)
	for i := range many {
		many[i] = mesh(fmt.Sprint("m", i), "")
	}
	tests := []struct {
		name string
		do   func(*Catalogue) error
		kind error
		says string
	}{
		{"one that is wrong", apply(mesh("c", ""), mesh("d", "==")), ErrInvalid, `measurement "d": selector "=="`},
		{"one given twice", apply(mesh("c", ""), mesh("c", "x")), ErrInvalid, `measurement "c" is there twice`},
		{"one of the file", apply(mesh("c", ""), mesh("f", "x")), ErrReadOnly, `measurement "f": it comes from the file`},
		{"too many", apply(many...), ErrInvalid, "there would be 1002; 1000 are allowed"},
		{"deleting what is not there", remove("a", "x"), ErrNotFound, `measurement "x": no such measurement; see probectl get measurements`},
		{"deleting what is of the file", remove("a", "f"), ErrReadOnly, `measurement "f": it comes from the file`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := New([]*synmeshv1.Measurement{mesh("f", "")}, apitest.NewMeasurements(mesh("a", ""), mesh("b", "")))
			err := tt.do(c)
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %q", err, tt.says)
			}
			if got := names(t, c); got != "a: b: f:*" {
				t.Errorf("there is %s", got)
			}
		})
	}
}

func apply(ms ...*synmeshv1.Measurement) func(*Catalogue) error {
	return func(c *Catalogue) error {
		_, err := c.Apply(context.Background(), identity.Identity{}, ms, false)
		return err
	}
}

func remove(names ...string) func(*Catalogue) error {
	return func(c *Catalogue) error { return c.Delete(context.Background(), identity.Identity{}, names) }
}

func TestDeletingWhatIsNamedTwiceDeletesItOnce(t *testing.T) {
	c := New(nil, apitest.NewMeasurements(mesh("a", ""), mesh("b", "")))
	if err := c.Delete(t.Context(), identity.Identity{}, []string{"b", "a", "b"}); err != nil || names(t, c) != "" {
		t.Errorf("got %v, and there is %s", err, names(t, c))
	}
}

func TestWithoutAStoreThereIsOnlyTheFile(t *testing.T) {
	c := New([]*synmeshv1.Measurement{mesh("f", "")}, nil)
	if got := names(t, c); got != "f:*" {
		t.Errorf("there is %s", got)
	}
	if _, err := c.Apply(t.Context(), identity.Identity{}, []*synmeshv1.Measurement{mesh("a", "")}, false); !errors.Is(err, ErrNoStore) {
		t.Errorf("got %v", err)
	}
	select {
	case <-c.Changed():
		t.Error("it tells of a change")
	default:
	}
}

func TestAStoreThatFailsIsNotTakenForEmpty(t *testing.T) {
	store := apitest.NewMeasurements(mesh("a", ""))
	c := New(nil, store)
	if got := names(t, c); got != "a:" {
		t.Errorf("there is %s", got)
	}
	store.Err = errors.New("the disk is gone")
	if _, err := c.All(); !errors.Is(err, store.Err) {
		t.Errorf("got %v", err)
	}
	if checked, err := c.Checked(); !errors.Is(err, store.Err) || len(checked) != 1 {
		t.Errorf("got %v and %v; what was known is measured on", checked, err)
	}
	if err := remove("a")(c); !errors.Is(err, store.Err) {
		t.Errorf("got %v", err)
	}
}

func TestWhatAnOlderProgramTookIsSaidAndLeftOut(t *testing.T) {
	c := New(nil, apitest.NewMeasurements(mesh("a", ""), mesh("b", "==")))
	checked, err := c.Checked()
	if len(checked) != 1 || err == nil || !strings.Contains(err.Error(), `measurement "b": selector "=="`) {
		t.Errorf("got %v and %v", checked, err)
	}
	if got := names(t, c); got != "a: b:==" {
		t.Errorf("there is %s", got)
	}
}
