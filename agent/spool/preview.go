package spool

import (
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// preview is what a parcel has of runs. Next may send it until the parcel is on disk. The
// controller tells by the number what it has shown: a parcel keeps it, whatever becomes of
// its sequence.
type preview struct {
	number  uint64
	blocks  int                    // of the parcel, the first
	encoded func() ([]byte, error) // these blocks as a report has them, made once for both
	taken   bool                   // by Next
}

// The following is called with the lock held.

// foresee gives a parcel a preview, if there is something of runs in it.
func (s *Spool) foresee(p *parcel) {
	n := 0
	for i, b := range p.blocks {
		if ofRuns(b.GetSource()) {
			p.blocks[n], p.blocks[i] = b, p.blocks[n]
			n++
		}
	}
	if n == 0 {
		return
	}
	s.numbers++
	runs := &synmeshv1.Report{Blocks: p.blocks[:n]}
	p.preview = &preview{number: s.numbers, blocks: n, encoded: sync.OnceValues(func() ([]byte, error) { return proto.Marshal(runs) })}
	s.notify()
}

// unseen returns the oldest preview that was not sent, and can be: its parcel is not on disk
// yet. What is due does not wait for the writer, who may be waiting for the disk.
func (s *Spool) unseen() *preview {
	if s.urgent && !time.Now().Before(s.due) {
		s.seal()
	}
	for _, parcels := range [][]parcel{s.writing, s.queue} {
		for _, p := range parcels {
			if p.preview != nil && !p.preview.taken {
				p.preview.taken = true
				return p.preview
			}
		}
	}
	return nil
}
