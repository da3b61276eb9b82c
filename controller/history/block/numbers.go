package block

import (
	mathbits "math/bits"
	"sync"

	"github.com/synmesh/synmesh/controller/history/bits"
)

// A column is predicted first, and what the prediction misses is coded: two
// bits tell the prediction, three the code. What is missed is counted modulo 2^64,
// so no number is too large. Signed numbers are written as zigzag uvarints.
//
// Predictions: asIs: 0. delta: the number before; 0 for the first. grid: first + row * step,
// both written first; for what is due at regular times.
const (
	asIs = iota
	delta
	grid
)

// Codes:
//
//   - constant: the number.
//   - fixed: the smallest, the bits of each (7 bits), and each, less the smallest.
//   - skewed: the smallest, a parameter (6 bits), and each, less the smallest, as a Rice
//     code: what is above the parameter's bits in unary, then these bits.
//   - centred: the middle, a parameter, and the zigzag difference of each as a Rice code.
//   - runs: for each run its number and one less than its length (uvarint).
//   - few: how many different ones there are less one (uvarint), each, and for every row
//     its place among them; as many rows share a number of up to 63 bits as fit, to the base of how many there are.
//   - cycle: the same dictionary, gone through again and again.
const (
	constant = iota
	fixed
	skewed
	centred
	runs
	few
	cycle
)

// kind says which predictions and codes a column is tried with.
type kind uint8

const (
	spread  kind = iota // numbers around others
	timed               // the same, and rising
	counted             // rising by the same, mostly
	choice              // few different ones
	random
)

const (
	// escape is the most ones of a Rice code; then follow all 64 bits.
	escape = 32
	// maxFew is the most different numbers of a dictionary.
	maxFew = 64
)

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

type packer struct {
	bits.Writer
	rtts, due []int64
	misses    [3][]int64
	seen      seen
}

// packers are those that nobody uses, for their memory.
var packers = sync.Pool{New: func() any { return new(packer) }}

func newPacker(dst []byte) *packer {
	w := packers.Get().(*packer)
	w.Writer = bits.NewWriter(dst)
	return w
}

// column writes the numbers of a column.
func (w *packer) column(v []int64, k kind) {
	if len(v) == 0 {
		return
	}
	if k != timed && k != counted || len(v) == 1 {
		w.write(v, w.choose(v, k))
		return
	}
	w.misses[delta] = missDelta(w.misses[delta][:0], v)
	// The first is far from the others: it goes by itself.
	best := w.choose(w.misses[delta][1:], k)
	best.prediction = delta
	if k == timed && best.code != constant {
		step := (v[len(v)-1] - v[0]) / int64(len(v)-1)
		w.misses[grid] = missGrid(w.misses[grid][:0], v, step)
		if p := w.choose(w.misses[grid][1:], k); p.cost < best.cost {
			best, best.prediction, best.step = p, grid, step
		}
	}
	w.write(v, best)
}

func missDelta(dst, v []int64) []int64 {
	last := int64(0)
	for _, x := range v {
		dst, last = append(dst, x-last), x
	}
	return dst
}

func missGrid(dst, v []int64, step int64) []int64 {
	next := v[0]
	for _, x := range v {
		dst, next = append(dst, x-next), next+step
	}
	return dst
}

// write writes the numbers as planned. Of those predicted, the first goes before the others.
func (w *packer) write(v []int64, p plan) {
	w.Write(uint64(p.prediction), 2)
	w.Write(uint64(p.code), 3)
	if p.prediction != asIs {
		w.signed(v[0])
		v = w.misses[p.prediction][1:]
	}
	if p.prediction == grid {
		w.signed(p.step)
	}
	switch p.code {
	case constant:
		w.signed(v[0])
	case fixed:
		w.signed(p.base)
		w.Write(uint64(p.width), 7)
		for _, x := range v {
			w.Write(uint64(x-p.base), p.width)
		}
	case skewed, centred:
		w.rice(v, p)
	case runs:
		w.runs(v)
	case few, cycle:
		w.few(v, p)
	}
}

func (w *packer) signed(v int64) { w.Uvarint(zigzag(v)) }

func (w *packer) rice(v []int64, p plan) {
	w.signed(p.base)
	w.Write(uint64(p.width), 6)
	mask := uint64(1)<<p.width - 1
	for _, x := range v {
		u := uint64(x - p.base)
		if p.code == centred {
			u = zigzag(x - p.base)
		}
		q := u >> p.width
		switch {
		case q >= escape:
			w.Write(1<<escape-1, escape)
			w.Write(u, 64)
		case uint(q)+1+p.width <= 56:
			w.Write((1<<(q+1)-2)<<p.width|u&mask, uint(q)+1+p.width)
		default:
			w.Unary(q)
			w.Write(u&mask, p.width)
		}
	}
}

func (w *packer) runs(v []int64) {
	for i := 0; i < len(v); {
		n := i + 1
		for n < len(v) && v[n] == v[i] {
			n++
		}
		w.signed(v[i])
		w.Uvarint(uint64(n - i - 1))
		i = n
	}
}

func (w *packer) few(v []int64, p plan) {
	w.Uvarint(uint64(w.seen.n - 1))
	for _, x := range w.seen.list[:w.seen.n] {
		w.signed(x)
	}
	if p.code == cycle {
		return
	}
	n := uint64(w.seen.n)
	digits := share(n)
	for len(v) > 0 {
		m := min(digits, len(v))
		sum, top := uint64(0), uint64(1)
		for _, x := range v[:m] {
			sum += top * uint64(w.seen.place(x))
			top *= n
		}
		w.Write(sum, uint(mathbits.Len64(top-1)))
		v = v[m:]
	}
}

// share returns how many digits to a base fit in 63 bits.
func share(base uint64) (digits int) {
	for top := uint64(1); top <= 1<<63/base; top *= base {
		digits++
	}
	return digits
}
