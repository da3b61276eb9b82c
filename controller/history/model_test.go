package history

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// modelEntry is what the model knows about a report stored.
type modelEntry struct {
	id     string
	from   time.Time // stored then or later
	cursor Cursor    // nil until it has been seen
	stored time.Time
}

// The store does what a list and a map would.
func TestTheStoreIsAListAndAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "history-model-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		c := newClock("2026-11-20T22:00:00Z")
		cfg := Config{Dir: dir, now: c.now}
		s, err := run(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
		}()
		var list []modelEntry
		marks := map[stream]uint64{}

		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				id := stream{rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "agent"), rapid.Uint64Range(1, 2).Draw(t, "epoch")}
				sequence := uint64(max(1, int(marks[id])+rapid.IntRange(-2, 3).Draw(t, "step")))
				stored, err := s.Append(t.Context(), id.agent, report(id.epoch, sequence, rapid.IntRange(0, 50).Draw(t, "results")))
				if err != nil || stored != (sequence > marks[id]) {
					t.Fatalf("%v, %d after %d: stored %v, %v", id, sequence, marks[id], stored, err)
				}
				if stored {
					marks[id] = sequence
					list = append(list, modelEntry{id: fmt.Sprintf("%s/%d/%d", id.agent, id.epoch, sequence), from: c.now()})
				}
			},
			"clock": func(t *rapid.T) {
				c.add(time.Duration(rapid.Int64Range(-int64(2*time.Hour), int64(6*time.Hour)).Draw(t, "by")))
			},
			"reopen": func(t *rapid.T) {
				if err := s.stop(); err != nil {
					t.Fatal(err)
				}
				if s, err = run(cfg); err != nil {
					t.Fatal(err)
				}
			},
			"scan": func(t *rapid.T) {
				from, first := time.Time{}, 0
				to, last := time.Time{}, len(list)
				var after Cursor
				if len(list) > 0 && list[len(list)-1].cursor != nil {
					pick := func(what string) modelEntry { return list[rapid.IntRange(0, len(list)-1).Draw(t, what)] }
					if rapid.Bool().Draw(t, "bounded below") {
						from = pick("from").stored
						first = slices.IndexFunc(list, func(e modelEntry) bool { return !e.stored.Before(from) })
					}
					if rapid.Bool().Draw(t, "bounded above") {
						to = pick("to").stored
						last = slices.IndexFunc(list, func(e modelEntry) bool { return !e.stored.Before(to) })
					}
					if rapid.Bool().Draw(t, "goes on") {
						e := pick("after")
						after = e.cursor
						first = max(first, 1+slices.IndexFunc(list, func(o modelEntry) bool { return o.id == e.id }))
					}
				}
				i := first
				for e, err := range s.Scan(t.Context(), from, to, after) {
					if err != nil {
						t.Fatal(err)
					}
					if i >= last || list[i].id != id(e) || e.Stored.Before(list[i].from) {
						t.Fatalf("entry %d is %s, stored %v", i, id(e), e.Stored)
					}
					if list[i].cursor != nil && (list[i].cursor.Compare(e.Cursor) != 0 || !list[i].stored.Equal(e.Stored)) {
						t.Fatalf("the cursor of %s changes", id(e))
					}
					if i > 0 && list[i-1].cursor != nil && e.Cursor.Compare(list[i-1].cursor) <= 0 {
						t.Fatalf("the cursor of %s is not greater than the one before", id(e))
					}
					list[i].cursor, list[i].stored = e.Cursor, e.Stored
					i++
				}
				if i < last {
					t.Fatalf("entries %d to %d do not come", i, last-1)
				}
			},
			"": func(t *rapid.T) {
				for id, want := range marks {
					if got, err := s.Sequence(id.agent, id.epoch); got != want || err != nil {
						t.Fatalf("Sequence of %v: %d, %v; not %d", id, got, err, want)
					}
				}
			},
		})
	})
}
