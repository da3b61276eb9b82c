package history

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

const (
	// maxWaiting bounds the bytes of the reports that wait to be committed.
	maxWaiting = 64 << 20
	// maxCommit bounds those of one commit; a report larger than that is
	// committed alone.
	maxCommit = 8 << 20
	// overhead is what a waiting report takes beside its bytes, about.
	overhead = 512
)

// Append stores a report of an agent and returns once it is durable. If it was
// stored before, stored is false.
//
// The reports of one epoch have to come in the order of their sequences, each
// when the one before has returned: a sequence that is not above the highest
// one stored counts as stored before. Sequences may be left out. Reports
// of different agents share commits when they come together; when more than
// 64 MiB wait, Append waits for room first.
//
// Errors wrap ErrInvalid (no report, no sequence, an agent's name that is empty
// or longer than 255 bytes, more than 4 MiB), ErrClosed, the context's
// error, or what kept the commit from succeeding, such as a full disk; the last
// can be tried again. After the context's error the report may or may not
// have been stored, and appending it again will tell.
func (s *Store) Append(ctx context.Context, agent string, r *synmeshv1.Report) (stored bool, err error) {
	size := proto.Size(r)
	switch {
	case r == nil || r.GetSequence() == 0:
		return false, fmt.Errorf("history: %w report of %q: it has no sequence", ErrInvalid, agent)
	case agent == "" || len(agent) > maxAgent:
		return false, fmt.Errorf("history: %w name of an agent: %d bytes, not 1 to %d", ErrInvalid, len(agent), maxAgent)
	case size > maxReport:
		return false, fmt.Errorf("history: %w report %d of %s: %d bytes, over %d", ErrInvalid, r.GetSequence(), agent, size, maxReport)
	}
	p := &pending{
		stream:   stream{agent, r.GetEpoch()},
		sequence: r.GetSequence(),
		results:  countResults(r),
		weight:   int64(size + overhead),
		done:     make(chan struct{}),
	}
	if s.durable(p.stream) >= p.sequence {
		s.count.duplicates.Add(1)
		return false, nil
	}
	if err := s.enqueue(ctx, p, r); err != nil {
		return false, err
	}
	select {
	case <-p.done:
		return p.stored, p.err
	case <-ctx.Done():
		return false, fmt.Errorf("history: report %d of %s may not be stored: %w", p.sequence, agent, ctx.Err())
	}
}

// enqueue encodes the report as soon as there is room for it.
func (s *Store) enqueue(ctx context.Context, p *pending, r *synmeshv1.Report) (err error) {
	if err := s.room.Acquire(ctx, p.weight); err != nil {
		return fmt.Errorf("history: report %d of %s is not stored: %w", p.sequence, p.agent, err)
	}
	if p.value, err = newRecord(p.agent, r); err == nil && !s.queue.put(p) {
		err = fmt.Errorf("history: report %d of %s is not stored: %w", p.sequence, p.agent, ErrClosed)
	}
	if err != nil {
		s.room.Release(p.weight)
	}
	return err
}

// Sequence returns the highest sequence stored of an agent's epoch, or 0 if there
// is none. It has been durable before it is told. The error wraps ErrClosed.
func (s *Store) Sequence(agent string, epoch uint64) (uint64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return 0, fmt.Errorf("history: sequence of %s: %w", agent, ErrClosed)
	}
	return s.marks[stream{agent, epoch}].sequence, nil
}

func (s *Store) durable(id stream) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.marks[id].sequence
}

func countResults(r *synmeshv1.Report) (n uint64) {
	for _, b := range r.GetBlocks() {
		n += uint64(len(b.GetOutcomes()))
	}
	return n
}
