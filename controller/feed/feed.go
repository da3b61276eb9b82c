// Package feed hands what agents have reported to those who wait for it: the
// results and the end of a run to the one who asked for it.
package feed

import (
	"slices"
	"sync"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Event is one thing that happened, in the order in which it did for its agent.
type Event struct {
	Agent   string
	Session uint64 // see fleet.Session.ID
	// Report has been stored, unless it is a preview. It is shared: do not change it. Without
	// one, the event says that the session has ended.
	Report *synmeshv1.Report
	// Preview says that the report has nothing but results that will be stored, if all
	// goes well, as a part of one with the same number of a preview.
	Preview bool
}

// queueLen is how many events may wait for a reader that is late: a large fleet
// reports all at once.
const queueLen = 1 << 14

// maxPreviews is how many events may wait where a preview still joins them: with more it would
// be no sooner than what is stored, and cost the reader its place in time.
const maxPreviews = 1 << 9

// Feed is safe for concurrent use.
type Feed struct {
	mu        sync.Mutex
	subs      map[*Subscription]struct{}
	overflows uint64
}

// New returns a Feed that nobody has subscribed to.
func New() *Feed { return &Feed{subs: make(map[*Subscription]struct{})} }

// Subscription receives the events about one source.
type Subscription struct {
	feed     *Feed
	source   string
	events   chan Event
	overflow chan struct{}
	once     sync.Once
}

// Subscribe begins to collect the reports that have something of the source,
// which is all that is waited for, and the ends of sessions. Close must be called.
func (f *Feed) Subscribe(source string) *Subscription {
	s := &Subscription{feed: f, source: source, events: make(chan Event, queueLen), overflow: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs[s] = struct{}{}
	return s
}

// Events yields what happened.
func (s *Subscription) Events() <-chan Event { return s.events }

// Overflow is closed when the reader was too slow and an event was lost to it.
func (s *Subscription) Overflow() <-chan struct{} { return s.overflow }

// Close ends the subscription.
func (s *Subscription) Close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	delete(s.feed.subs, s)
}

// Wants tells whether anybody has subscribed to one of the sources.
func (f *Feed) Wants(sources [][]byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		if slices.ContainsFunc(sources, func(b []byte) bool { return string(b) == s.source }) {
			return true
		}
	}
	return false
}

// Publish hands an event to those whom it concerns, but for previews to those who are late.
// It never waits.
func (f *Feed) Publish(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		if e.Report != nil && !concerns(e.Report, s.source) {
			continue
		}
		if e.Preview && len(s.events) >= maxPreviews {
			continue
		}
		select {
		case s.events <- e:
		default:
			s.once.Do(func() {
				f.overflows++
				close(s.overflow)
			})
		}
	}
}

// Overflows returns how many readers were too slow.
func (f *Feed) Overflows() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.overflows
}

func concerns(r *synmeshv1.Report, source string) bool {
	for _, b := range r.GetBlocks() {
		if b.GetSource() == source {
			return true
		}
	}
	for _, e := range r.GetRunEnds() {
		if e.GetRun() == source {
			return true
		}
	}
	return false
}
