package block

import (
	mathbits "math/bits"

	"github.com/synmesh/synmesh/controller/history/bits"
)

type unpacker struct {
	bits.Reader
	bad bool
}

func (r *unpacker) failed() bool { return r.bad || r.Overrun() }

func (r *unpacker) signed() int64 { return unzigzag(r.Uvarint()) }

// column appends the n numbers of a column to v.
func (r *unpacker) column(v []int64, n int) []int64 {
	if n == 0 {
		return v
	}
	prediction, code := r.Read(2), r.Read(3)
	var first, step int64
	switch prediction {
	case asIs:
		return r.numbers(v, n, code)
	case grid:
		first, step = r.signed(), r.signed()
	case delta:
		first = r.signed()
	default:
		r.bad = true
		return v
	}
	if n == 1 { // nothing is left to be predicted
		r.bad = true
		return v
	}
	start := len(v)
	v = r.numbers(append(v, first), n-1, code)
	if r.failed() {
		return v
	}
	if prediction == delta {
		for i := start + 1; i < len(v); i++ {
			v[i] += v[i-1]
		}
		return v
	}
	for i := start + 1; i < len(v); i++ {
		first += step
		v[i] += first
	}
	return v
}

// numbers appends n numbers in a code to v.
func (r *unpacker) numbers(v []int64, n int, code uint64) []int64 {
	switch code {
	case constant:
		x := r.signed()
		for range n {
			v = append(v, x)
		}
	case fixed:
		base, width := r.signed(), uint(r.Read(7))
		if width == 0 || width > 64 || n*int(width) > r.Left() {
			r.bad = true
			return v
		}
		for range n {
			v = append(v, base+int64(r.Read(width)))
		}
	case skewed, centred:
		return r.rice(v, n, code == centred)
	case runs:
		return r.runs(v, n)
	case few, cycle:
		return r.few(v, n, code == cycle)
	default:
		r.bad = true
	}
	return v
}

func (r *unpacker) rice(v []int64, n int, centred bool) []int64 {
	base, width := r.signed(), uint(r.Read(6))
	if n*int(width+1) > r.Left() {
		r.bad = true
		return v
	}
	for range n {
		u := r.Unary(escape)
		if u == escape {
			u = r.Read(64)
			if u>>width < escape {
				r.bad = true
				return v
			}
		} else {
			u = u<<width | r.Read(width)
		}
		if centred {
			v = append(v, base+unzigzag(u))
		} else {
			v = append(v, base+int64(u))
		}
	}
	return v
}

func (r *unpacker) runs(v []int64, n int) []int64 {
	for n > 0 {
		x, more := r.signed(), r.Uvarint()
		if more >= uint64(n) || r.failed() {
			r.bad = true
			return v
		}
		for range more + 1 {
			v = append(v, x)
		}
		n -= int(more) + 1
	}
	return v
}

func (r *unpacker) few(v []int64, n int, cycle bool) []int64 {
	count := r.Uvarint() + 1
	if count < 2 || count > maxFew || count > uint64(n) {
		r.bad = true
		return v
	}
	var list [maxFew]int64
	for i := range count {
		list[i] = r.signed()
	}
	if cycle {
		for i := range n {
			v = append(v, list[i%int(count)])
		}
		return v
	}
	digits := share(count)
	for n > 0 && !r.failed() {
		m, top := min(digits, n), uint64(1)
		for range m {
			top *= count
		}
		sum := r.Read(uint(mathbits.Len64(top - 1)))
		if sum >= top {
			r.bad = true
			return v
		}
		for range m {
			v = append(v, list[sum%count])
			sum /= count
		}
		n -= m
	}
	return v
}
