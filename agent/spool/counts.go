package spool

import (
	"encoding/binary"
	"errors"
)

// Reason says why results were dropped. The values are those of synmesh.v1.DropReason.
type Reason int

// The reasons.
const (
	Full     Reason = iota + 1 // there was no room; the oldest went first
	Disk                       // the disk did not take them
	Rejected                   // the controller refused the report as malformed
	Corrupt                    // the disk gave back something else than was written
	Crash                      // the process died while it was writing them
)

// Drops is how many results were dropped, by Reason.
type Drops [Crash + 1]uint64

// Sum is how many were dropped, for all reasons together.
func (d *Drops) Sum() (n uint64) {
	for _, c := range d {
		n += c
	}
	return n
}

// counts is what has to be known for ever, and stands at the beginning of every
// segment: so any other segment may go.
type counts struct {
	unwritten uint64 // results dropped before they had a number
	drops     Drops
	marks     []mark   // of all epochs that still have segments
	gone      []uint64 // numbers of segments to be removed once this is on disk
}

// mark says that all of an epoch up to the sequence is stored or dropped.
type mark struct{ epoch, sequence uint64 }

func (c *counts) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, c.unwritten)
	for _, n := range c.drops {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(c.marks)))
	for _, m := range c.marks {
		b = binary.BigEndian.AppendUint64(b, m.epoch)
		b = binary.BigEndian.AppendUint64(b, m.sequence)
	}
	for _, id := range c.gone {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	return b
}

var errCounts = errors.New("counts of an impossible length")

func parseCounts(b []byte) (c counts, err error) {
	const fixed = 8 + 8*len(c.drops) + 4
	if len(b) < fixed {
		return c, errCounts
	}
	take := func() uint64 {
		n := binary.BigEndian.Uint64(b)
		b = b[8:]
		return n
	}
	c.unwritten = take()
	for i := range c.drops {
		c.drops[i] = take()
	}
	marks := int64(binary.BigEndian.Uint32(b))
	b = b[4:]
	if int64(len(b)) < 16*marks || len(b)%8 != 0 {
		return counts{}, errCounts
	}
	for range marks {
		c.marks = append(c.marks, mark{take(), take()})
	}
	for len(b) > 0 {
		c.gone = append(c.gone, take())
	}
	return c, nil
}
