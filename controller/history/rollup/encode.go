package rollup

import (
	"errors"
	"fmt"
	"math"
	mathbits "math/bits"
	"slices"
	"sync"
	"time"

	"github.com/synmesh/synmesh/controller/history/bits"
	"github.com/synmesh/synmesh/probe"
)

// ErrMalformed says that bytes are no summaries.
var ErrMalformed = errors.New("malformed summaries")

// lowestBin and highestBin are those of the shortest and the longest round trip that there can be.
var lowestBin, highestBin = bins.Index(1), bins.Index(math.MaxInt64)

// minTotal is of how many summaries the total is kept, too.
const minTotal = 4

// Append appends summaries to dst. Slots rise. It is a stream of bits: how many
// there are (uvarint), the first slot (zigzag uvarint) and by how much the last is
// behind that (uvarint); if there are four or more, all of them together; and then for every summary
// how far its slot is behind the one before (uvarint, not for the first), and:
//
//   - the counts: a bit that tells whether all are open, then how many are or how many there are
//     of each outcome from 1 on (uvarints); how many answered have no round trip (uvarint);
//   - if there are round trips: the shortest (zigzag uvarint), by how much the longest is longer, and what is
//     left of their sum when the shortest is taken from each (uvarints); the first bin less the
//     lowest possible (12 bits), a parameter (6 bits; see denseWidth), and a bit that tells whether the bins are dense.
//     If so, how many there are less one (uvarint), of each what is above the parameter's bits of its count in
//     unary, and then the rest of each. Otherwise how many are not empty, less one (uvarint), and for each how far it is behind the
//     one before (Elias gamma, not for the first) and its count less one (Rice).
func Append(dst []byte, slots []Slot) []byte {
	w := bits.NewWriter(dst)
	w.Uvarint(uint64(len(slots)))
	if len(slots) == 0 {
		return w.Bytes()
	}
	last := slots[0].At
	w.Uvarint(zigzag(last))
	w.Uvarint(uint64(slots[len(slots)-1].At - last))
	if len(slots) >= minTotal {
		var total Summary
		for i := range slots {
			total.Merge(&slots[i].Summary)
		}
		appendSummary(&w, &total)
	}
	for i := range slots {
		s := &slots[i]
		if i > 0 {
			w.Uvarint(uint64(s.At - last))
		}
		last = s.At
		appendSummary(&w, &s.Summary)
	}
	return w.Bytes()
}

// Slot is what was found in one stretch of time: a minute or an hour, counted since 1970.
type Slot struct {
	At int64
	Summary
}

// slots are those that Decode has used.
var slots = sync.Pool{New: func() any { return new(Slot) }}

func appendSummary(w *bits.Writer, s *Summary) {
	if open := s.Counts[probe.Open]; open == s.Sent() {
		w.Write(1, 1)
		w.Uvarint(open)
	} else {
		w.Write(0, 1)
		for _, n := range s.Counts[1:] {
			w.Uvarint(n)
		}
	}
	w.Uvarint(s.Counts[probe.Open] + s.Counts[probe.Closed] - s.Timed)
	if s.Timed == 0 {
		return
	}
	w.Uvarint(zigzag(int64(s.Min)))
	w.Uvarint(uint64(s.Max - s.Min))
	w.Uvarint(uint64(s.Sum) - s.Timed*uint64(s.Min))
	w.Write(uint64(s.first-lowestBin), 12)
	used := uint64(0)
	for _, n := range s.counts {
		if n > 0 {
			used++
		}
	}
	if all := uint64(len(s.counts)); all <= 4*used {
		s.appendDense(w, denseWidth(s.Timed, all))
	} else {
		s.appendSparse(w, used, sparseWidth(s.Timed, used))
	}
}

// The parameter of the Rice codes keeps what is in unary about as long as there are bins.
func denseWidth(timed, bins uint64) uint  { return uint(mathbits.Len64(timed / bins / 2)) }
func sparseWidth(timed, bins uint64) uint { return uint(mathbits.Len64((timed - bins) / bins)) }

func (s *Summary) appendDense(w *bits.Writer, width uint) {
	w.Write(uint64(width), 6)
	w.Write(1, 1)
	w.Uvarint(uint64(len(s.counts) - 1))
	for _, n := range s.counts {
		w.Unary(n >> width)
	}
	for _, n := range s.counts {
		w.Write(n&(1<<width-1), width)
	}
}

func (s *Summary) appendSparse(w *bits.Writer, used uint64, width uint) {
	w.Write(uint64(width), 6)
	w.Write(0, 1)
	w.Uvarint(used - 1)
	gap := uint64(0)
	for i, n := range s.counts {
		gap++
		if n == 0 {
			continue
		}
		if i > 0 {
			length := uint(mathbits.Len64(gap))
			w.Write(0, length-1)
			w.Write(gap, length)
		}
		gap = 0
		w.Unary((n - 1) >> width)
		w.Write((n-1)&(1<<width-1), width)
	}
}

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// Decode calls yield with each summary of data that is from slot from (inclusive) to slot to
// (exclusive), in order, until that returns false. If all of them are, and together says of
// the first and the last slot that they need not be told apart, yield may be called once, with
// all of them together as the first slot. together may be nil. A summary is valid until the
// next. The error wraps ErrMalformed.
func Decode(data []byte, from, to int64, together func(first, last int64) bool, yield func(*Slot) bool) error {
	r := bits.NewReader(data)
	s := slots.Get().(*Slot)
	defer slots.Put(s)
	count := r.Uvarint()
	if count == 0 {
		return end(&r)
	}
	first, span := unzigzag(r.Uvarint()), r.Uvarint()
	last := first + int64(span)
	if last < first || span < count-1 {
		return fmt.Errorf("%w: %d slots from %d to %d", ErrMalformed, count, first, last)
	}
	if last < from || first >= to {
		return nil
	}
	s.At = first
	if count >= minTotal {
		wanted := first >= from && last < to && together != nil && together(first, last)
		if !s.readOrSkip(&r, wanted) {
			return fmt.Errorf("%w: the total", ErrMalformed)
		}
		if wanted {
			yield(s)
			return nil
		}
	}
	for i := range count {
		if i > 0 {
			gap := r.Uvarint()
			if gap == 0 || gap > uint64(last-s.At) {
				return fmt.Errorf("%w: slots that do not rise", ErrMalformed)
			}
			s.At += int64(gap)
		}
		if s.At >= to {
			return nil
		}
		wanted := s.At >= from
		if !s.readOrSkip(&r, wanted) {
			return fmt.Errorf("%w: slot %d", ErrMalformed, s.At)
		}
		if wanted && !yield(s) {
			return nil
		}
	}
	if s.At != last {
		return fmt.Errorf("%w: the last slot is %d, not %d", ErrMalformed, s.At, last)
	}
	return end(&r)
}

func end(r *bits.Reader) error {
	if !r.End() {
		return fmt.Errorf("%w: more behind the last", ErrMalformed)
	}
	return nil
}

// readOrSkip reads what appendSummary has written, or, if it is not wanted, what there has to be to find its
// end; then the summary is of no use.
func (s *Summary) readOrSkip(r *bits.Reader, wanted bool) (ok bool) {
	s.Reset()
	if r.Read(1) == 1 {
		s.Counts[probe.Open] = r.Uvarint()
	} else {
		for i := range s.Counts[1:] {
			s.Counts[i+1] = r.Uvarint()
		}
	}
	answered, untimed := s.Counts[probe.Open]+s.Counts[probe.Closed], r.Uvarint()
	if untimed > answered {
		return false
	}
	if s.Timed = answered - untimed; s.Timed == 0 {
		return !r.Overrun()
	}
	s.Min = time.Duration(unzigzag(r.Uvarint()))
	s.Max = s.Min + time.Duration(r.Uvarint())
	s.Sum = time.Duration(r.Uvarint() + s.Timed*uint64(s.Min))
	return s.Max >= s.Min && s.readBins(r, wanted) && !r.Overrun()
}

func (s *Summary) readBins(r *bits.Reader, wanted bool) (ok bool) {
	head, n := r.Read(12+6+1), r.Uvarint()
	s.first = int(head>>7) + lowestBin
	width, dense := uint(head>>1&(1<<6-1)), head&1 == 1
	switch {
	case s.first > highestBin || n > uint64(highestBin-s.first) || width > 57:
		return false
	case dense && wanted:
		return s.readDense(r, int(n)+1, width)
	case dense:
		r.SkipUnaries(int(n) + 1)
		r.Skip((n + 1) * uint64(width))
		return true
	}
	return s.readSparse(r, n+1, width)
}

func (s *Summary) readDense(r *bits.Reader, bins int, width uint) (ok bool) {
	s.counts = slices.Grow(s.counts, bins)[:bins]
	sum := r.Unaries(s.counts)
	if width != denseWidth(s.Timed, uint64(bins)) || sum > s.Timed>>width {
		return false
	}
	if width > 0 {
		sum = r.Lows(s.counts, width)
	}
	return sum == s.Timed && s.counts[0] > 0 && s.counts[bins-1] > 0
}

func (s *Summary) readSparse(r *bits.Reader, used uint64, width uint) (ok bool) {
	left := s.Timed
	if used > left || width != sparseWidth(left, used) {
		return false
	}
	for i := range used {
		if i > 0 {
			gap := gamma(r)
			if gap == 0 || gap > uint64(highestBin-lowestBin) {
				return false
			}
			for range gap - 1 {
				s.counts = append(s.counts, 0)
			}
		}
		if len(s.counts) > highestBin-s.first || r.Overrun() {
			return false
		}
		n := r.Unary(left>>width + 1)
		if n > left>>width {
			return false
		}
		n = n<<width + r.Read(width) + 1
		if n > left {
			return false
		}
		left -= n
		s.counts = append(s.counts, n)
	}
	return left == 0
}

// gamma reads an Elias gamma code; 0 if it is none.
func gamma(r *bits.Reader) uint64 {
	zeros := uint(0)
	for r.Read(1) == 0 {
		if zeros++; zeros > 16 {
			return 0
		}
	}
	return 1<<zeros | r.Read(zeros)
}
