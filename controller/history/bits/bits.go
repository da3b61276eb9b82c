// Package bits writes and reads numbers of any number of bits, the first bit
// being the highest of the first byte. Writer's zero value is ready for use;
// give Reader the bytes with NewReader.
package bits

import (
	"encoding/binary"
	"math/bits"
)

// Writer appends numbers to a slice.
type Writer struct {
	buf []byte
	acc uint64 // its lowest n bits are not in buf yet
	n   uint   // below 8
}

// NewWriter returns a Writer that appends to dst.
func NewWriter(dst []byte) Writer { return Writer{buf: dst} }

// Write writes the lowest n bits of v, n being 64 at most; higher ones have to be 0.
func (w *Writer) Write(v uint64, n uint) {
	if n > 56 {
		w.Write(v>>32, n-32)
		v, n = v&(1<<32-1), 32
	}
	w.acc = w.acc<<n | v
	w.n += n
	whole := w.n / 8
	if whole == 0 {
		return
	}
	w.n %= 8
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], w.acc>>w.n<<(64-8*whole))
	w.buf = append(w.buf, b[:whole]...)
}

// Unary writes v ones and a zero.
func (w *Writer) Unary(v uint64) {
	for ; v >= 32; v -= 32 {
		w.Write(1<<32-1, 32)
	}
	w.Write(1<<(v+1)-2, uint(v)+1)
}

// Uvarint writes a number in groups of seven bits, each behind a bit that tells
// whether another follows.
func (w *Writer) Uvarint(v uint64) {
	for v >= 1<<7 {
		w.Write(v&(1<<7-1)|1<<7, 8)
		v >>= 7
	}
	w.Write(v, 8)
}

// Bytes returns the slice; the last byte is filled up with zeros. Nothing may be
// written after that.
func (w *Writer) Bytes() []byte {
	if w.n > 0 {
		w.Write(0, 8-w.n)
	}
	return w.buf
}

// Reader reads what a Writer has written. What is read beyond the end is 0, and
// then Overrun tells so.
type Reader struct {
	b    []byte
	pos  int // the next bit
	over bool
}

// NewReader returns a Reader of b.
func NewReader(b []byte) Reader { return Reader{b: b} }

// windowBits is how many bits a window has at least.
const windowBits = 57

// window returns the next bits, from the highest on.
func (r *Reader) window() uint64 {
	i := r.pos >> 3
	if i+8 <= len(r.b) {
		return binary.BigEndian.Uint64(r.b[i:]) << (r.pos & 7)
	}
	var b [8]byte
	if i < len(r.b) {
		copy(b[:], r.b[i:])
	}
	return binary.BigEndian.Uint64(b[:]) << (r.pos & 7)
}

func (r *Reader) skip(n uint) {
	r.pos += int(n)
	if r.pos > 8*len(r.b) {
		r.over, r.pos = true, 8*len(r.b)
	}
}

// Read reads a number of n bits, n being 64 at most.
func (r *Reader) Read(n uint) uint64 {
	if n > 56 {
		high := r.Read(n - 32)
		return high<<32 | r.Read(32)
	}
	v := r.window() >> 1 >> (63 - n)
	r.skip(n)
	return v
}

// Unary reads ones up to a zero, and returns how many there were, up to limit.
// Then the zero is left out.
func (r *Reader) Unary(limit uint64) (v uint64) {
	for {
		n := min(uint64(bits.LeadingZeros64(^r.window())), 56)
		if v+n >= limit {
			r.skip(uint(limit - v))
			return limit
		}
		v += n
		if n < 56 {
			r.skip(uint(n) + 1)
			return v
		}
		r.skip(uint(n))
		if r.over {
			return v
		}
	}
}

// Unaries fills v with numbers as Unary reads them, and returns their sum. It is
// for many small ones.
func (r *Reader) Unaries(v []uint64) (sum uint64) {
	for i := 0; i < len(v) && !r.over; {
		ends := bits.Reverse64(^r.window()) & (1<<windowBits - 1) // of the numbers; the next bit is the lowest
		if ends == 0 {
			v[i] = r.Unary(1 << 32)
			sum += v[i]
			i++
			continue
		}
		first, read := i, 0
		for ends != 0 && i < len(v) {
			end := bits.TrailingZeros64(ends)
			v[i] = uint64(end - read)
			read = end + 1
			ends &= ends - 1
			i++
		}
		sum += uint64(read - (i - first))
		r.skip(uint(read))
	}
	return sum
}

// Uvarint reads what Writer.Uvarint has written. A number that is longer than it
// needs to be, or than 64 bits, counts as an overrun.
func (r *Reader) Uvarint() (v uint64) {
	if w := r.window(); w < 1<<63 { // most are small
		r.skip(8)
		return w >> 56
	}
	for shift := uint(0); ; shift += 7 {
		b := r.Read(8)
		if shift == 63 && b > 1 || shift > 0 && b == 0 {
			r.over = true
			return 0
		}
		v |= (b & (1<<7 - 1)) << shift
		if b < 1<<7 {
			return v
		}
	}
}

// Bytes reads the next n bytes.
func (r *Reader) Bytes(n uint64) []byte {
	if n > uint64(r.Left()/8) {
		r.over = true
		return nil
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Read(8))
	}
	return b
}

// Left returns how many bits are left.
func (r *Reader) Left() int { return 8*len(r.b) - r.pos }

// Overrun tells whether more was read than there is.
func (r *Reader) Overrun() bool { return r.over }

// End tells whether everything was read, but for the zeros that fill the last byte.
func (r *Reader) End() bool {
	left := r.Left()
	return !r.over && left < 8 && r.Read(uint(left)) == 0
}
