package history

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestScanKeepsToItsBounds(t *testing.T) {
	c := newClock("2026-11-20T23:50:00Z")
	s := start(t, Config{Dir: t.TempDir(), now: c.now})
	first := c.now()
	var want []string
	var cursors []Cursor
	for i := range uint64(20) { // over two days
		add(t, s, "a", 1, i+1)
		want = append(want, fmt.Sprintf("a/1/%d", i+1))
		c.add(time.Minute)
	}
	for e, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		cursors = append(cursors, e.Cursor)
	}
	at := func(minute int) time.Time { return first.Add(time.Duration(minute) * time.Minute) }
	for _, tc := range []struct {
		name     string
		from, to time.Time
		after    Cursor
		want     []string
	}{
		{"everything", time.Time{}, time.Time{}, nil, want},
		{"the end is exclusive", at(3), at(5), nil, want[3:5]},
		{"between two reports", at(3).Add(1), at(5).Add(1), nil, want[4:6]},
		{"over midnight", at(8), at(12), nil, want[8:12]},
		{"nothing", at(3), at(3), nil, nil},
		{"an end before the start", at(5), at(3), nil, nil},
		{"after a cursor", time.Time{}, time.Time{}, cursors[12], want[13:]},
		{"after a cursor at midnight", time.Time{}, time.Time{}, cursors[9], want[10:]},
		{"after a cursor before the start", at(5), at(7), cursors[2], want[5:7]},
		{"after a cursor at the end", at(5), at(7), cursors[6], nil},
		{"after the last", time.Time{}, time.Time{}, cursors[19], nil},
		{"after the last cursor that can be", time.Time{}, time.Time{}, Cursor("\xff\xff\xff\xff\xff\xff\xff\xff"), nil},
		{"before there was time", time.Unix(math.MinInt64, 0), at(1), nil, want[:1]},
		{"the far future", at(18), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), nil, want[18:]},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, ids(t, s, tc.from, tc.to, tc.after)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestCursorsTravelAsText(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir()})
	for i := range uint64(7) {
		add(t, s, "a", 1, i+1)
	}
	var got []string
	for token, pages := "", 0; ; pages++ {
		after, err := ParseCursor(token)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for e, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, after) {
			if err != nil {
				t.Fatal(err)
			}
			got, token = append(got, id(e)), e.Cursor.String()
			if n++; n == 3 {
				break
			}
		}
		if n == 0 {
			break
		}
	}
	if d := cmp.Diff(all(t, s), got); d != "" {
		t.Error(d)
	}
	for _, token := range []string{"x", "00", "0011223344556677 ", "00112233445566AA", "001122334455667788"} {
		if _, err := ParseCursor(token); !errors.Is(err, ErrInvalid) {
			t.Errorf("ParseCursor(%q): %v", token, err)
		}
	}
	for _, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, Cursor("short")) {
		if !errors.Is(err, ErrInvalid) {
			t.Error(err)
		}
	}
}

// Nothing is held while the caller has an entry: it may append, and what is
// stored meanwhile comes too.
func TestScanHoldsNothing(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir()})
	for i := range uint64(10) {
		add(t, s, "a", 1, i+1)
	}
	n, added := 0, 0
	for _, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; added < 2*pageRows {
			addMany(t, s, "b", 1, uint64(added+1), uint64(added+50))
			added += 50
		}
	}
	if n < 10 || len(all(t, s)) != 10+added {
		t.Errorf("%d entries while %d were added, %d in the end", n, added, len(all(t, s)))
	}
}

func TestScanReadsManyPages(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir()})
	var want []string
	for i := range uint64(20) { // of 100 kB each
		r := report(1, i+1, 10)
		r.Blocks[0].Address = make([]byte, 100_000)
		if _, err := s.Append(t.Context(), "a", r); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("a/1/%d", i+1))
	}
	if d := cmp.Diff(want, all(t, s)); d != "" {
		t.Error(d)
	}
}

func TestScanEndsWithItsContext(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir()})
	addMany(t, s, "a", 1, 1, 2*pageRows)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var errs []error
	n := 0
	for _, err := range s.Scan(ctx, time.Time{}, time.Time{}, nil) {
		cancel()
		n++
		errs = append(errs, err)
	}
	if n > pageRows+1 || !errors.Is(errs[n-1], context.Canceled) || slices.ContainsFunc(errs[:n-1], func(err error) bool { return err != nil }) {
		t.Errorf("%d entries, then %v", n, errs[n-1])
	}
}

// Whoever follows with cursors gets every report once, while they are stored
// and while days change.
func TestFollowersMissNothing(t *testing.T) {
	c := newClock("2026-11-20T23:59:00Z")
	s := start(t, Config{Dir: t.TempDir(), now: c.now})
	const n = 150
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range uint64(n) {
			if _, err := s.Append(t.Context(), "a", report(1, i+1, 1)); err != nil {
				t.Error(err)
			}
			c.add(time.Second)
		}
	}()
	var after Cursor
	next := uint64(1)
	for ended := false; next <= n && !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		for e, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, after) {
			if err != nil {
				t.Fatal(err)
			}
			if after = e.Cursor; e.Report.GetSequence() != next {
				t.Fatalf("report %d comes where %d should", e.Report.GetSequence(), next)
			}
			next++
		}
	}
	<-done
	if next != n+1 {
		t.Errorf("%d reports came, not %d", next-1, n)
	}
}

// Between the last page of a file and the next file, the first may get more
// reports.
func TestAFollowerMissesNothingAtMidnight(t *testing.T) {
	c := newClock("2026-11-20T23:59:59Z")
	s := start(t, Config{Dir: t.TempDir(), now: c.now})
	add(t, s, "a", 1, 1)
	add(t, s, "a", 1, 2)
	var got []string
	var after Cursor
	for range 2 {
		for e, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, after) {
			if err != nil {
				t.Fatal(err)
			}
			if got, after = append(got, id(e)), e.Cursor; len(got) == 2 { // of a page that has been read
				add(t, s, "a", 1, 3)
				c.add(time.Second)
				add(t, s, "a", 1, 4)
			}
		}
	}
	if d := cmp.Diff(sequences(1, 4), got); d != "" {
		t.Error(d)
	}
}

// Commits reuse the pages of the tree that nobody reads any more, and only
// those.
func TestScanSeesWholeReportsWhileOthersAreStored(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir()})
	const agents, each = 4, 100
	var wg sync.WaitGroup
	defer wg.Wait()
	for a := range agents {
		wg.Go(func() {
			for i := range uint64(each) {
				r := report(1, i+1, 1)
				r.Blocks[0].Address = make([]byte, 100+int(i*97)%3000)
				if _, err := s.Append(t.Context(), fmt.Sprint(a), r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for seen := 0; seen < agents*each && !t.Failed(); {
		next := map[string]uint64{}
		n := 0
		for e, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
			if err != nil {
				t.Fatal(err)
			}
			if next[e.Agent]++; e.Report.GetSequence() != next[e.Agent] {
				t.Fatalf("%s: report %d comes where %d should", e.Agent, e.Report.GetSequence(), next[e.Agent])
			}
			n++
		}
		if n < seen {
			t.Fatalf("%d reports, and there were %d before", n, seen)
		}
		seen = n
	}
	wg.Wait()
	if st := s.Stats(); st.CorruptRecords+st.DamagedFiles != 0 {
		t.Errorf("%+v", st)
	}
}
