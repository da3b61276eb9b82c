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

// Encoded is a report as it came, and what is known of it.
type Encoded struct {
	Epoch, Sequence uint64
	Results         uint64
	// Bytes are the encoding of a synmeshv1.Report that says the same.
	Bytes []byte
}

// Encode returns a report's encoding. The error wraps ErrInvalid.
func Encode(r *synmeshv1.Report) (Encoded, error) {
	data, err := proto.Marshal(r)
	if err != nil {
		return Encoded{}, fmt.Errorf("history: %w report %d: %w", ErrInvalid, r.GetSequence(), err)
	}
	return Encoded{r.GetEpoch(), r.GetSequence(), countResults(r), data}, nil
}

// Append does what AppendEncoded does with a report that is not encoded yet.
func (s *Store) Append(ctx context.Context, agent string, r *synmeshv1.Report) (stored bool, err error) {
	e, err := Encode(r)
	if err != nil {
		return false, err
	}
	return s.AppendEncoded(ctx, agent, e)
}

// AppendEncoded stores a report of an agent and returns once it is durable. If it was
// stored before, stored is false. The report's bytes are not needed any more then.
//
// The reports of one epoch have to come in the order of their sequences, each
// when the one before has returned: a sequence that is not above the highest
// one stored counts as stored before. Sequences may be left out. Reports
// of different agents share commits when they come together; when more than
// 64 MiB wait, AppendEncoded waits for room first.
//
// Errors wrap ErrInvalid (no sequence, an agent's name that is empty
// or longer than 255 bytes, more than 4 MiB), ErrClosed, the context's
// error, or what kept the commit from succeeding, such as a full disk; the last
// can be tried again. After the context's error the report may or may not
// have been stored, and appending it again will tell.
func (s *Store) AppendEncoded(ctx context.Context, agent string, r Encoded) (stored bool, err error) {
	switch {
	case r.Sequence == 0:
		return false, fmt.Errorf("history: %w report of %q: it has no sequence", ErrInvalid, agent)
	case agent == "" || len(agent) > maxAgent:
		return false, fmt.Errorf("history: %w name of an agent: %d bytes, not 1 to %d", ErrInvalid, len(agent), maxAgent)
	case len(r.Bytes) > maxReport:
		return false, fmt.Errorf("history: %w report %d of %s: %d bytes, over %d", ErrInvalid, r.Sequence, agent, len(r.Bytes), maxReport)
	}
	p := &pending{
		stream:   stream{agent, r.Epoch},
		sequence: r.Sequence,
		results:  r.Results,
		weight:   int64(len(r.Bytes) + overhead),
		done:     make(chan struct{}),
	}
	if s.durable(p.stream) >= p.sequence {
		s.count.duplicates.Add(1)
		return false, nil
	}
	if err := s.enqueue(ctx, p, r.Bytes); err != nil {
		return false, err
	}
	select {
	case <-p.done:
		return p.stored, p.err
	case <-ctx.Done():
		return false, fmt.Errorf("history: report %d of %s may not be stored: %w", p.sequence, agent, ctx.Err())
	}
}

// enqueue makes the record as soon as there is room for it.
func (s *Store) enqueue(ctx context.Context, p *pending, report []byte) error {
	if err := s.room.Acquire(ctx, p.weight); err != nil {
		return fmt.Errorf("history: report %d of %s is not stored: %w", p.sequence, p.agent, err)
	}
	p.value = newRecord(p.agent, report)
	if !s.queue.put(p) {
		s.room.Release(p.weight)
		return fmt.Errorf("history: report %d of %s is not stored: %w", p.sequence, p.agent, ErrClosed)
	}
	return nil
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
