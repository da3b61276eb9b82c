package block

import (
	mathbits "math/bits"
	"slices"
)

// plan is how a column is written, and what that costs in bits, about. For a dictionary, the
// packer has what is in it.
type plan struct {
	prediction, code int
	base, step       int64
	width            uint
	cost             int
}

// seen is the different numbers of a column, in the order in which they came.
type seen struct {
	list [maxFew]int64
	n    int
}

// place returns the place of a number among those seen, or -1.
func (s *seen) place(x int64) int { return slices.Index(s.list[:s.n], x) }

// add returns the place of a number, a new one if need be; maxFew if there is none left.
func (s *seen) add(x int64) int {
	i := s.place(x)
	if i < 0 {
		if i = s.n; i < maxFew {
			s.list[i] = x
			s.n++
		}
	}
	return i
}

// choose finds the cheapest code for numbers, of those that the kind may take.
func (w *packer) choose(v []int64, k kind) plan {
	low, high, last, changes := v[0], v[0], v[0], 0
	for _, x := range v {
		if x != last {
			low, high, last = min(low, x), max(high, x), x
			changes++
		}
	}
	if changes == 0 {
		return plan{code: constant, cost: 8}
	}
	span := uint64(high - low)
	width := uint(mathbits.Len64(span))
	best := plan{code: fixed, base: low, width: width, cost: 16 + len(v)*int(width)}
	if cost := (changes + 1) * (16 + mathbits.Len64(span)); cost < best.cost {
		best = plan{code: runs, cost: cost}
	}
	switch k {
	case spread, timed:
		best = chooseRice(v, low, best)
	case choice:
		best = w.chooseFew(v, best)
	}
	return best
}

// chooseRice returns the better of a plan and the Rice codes.
func chooseRice(v []int64, low int64, best plan) plan {
	middle := middle(v)
	var skew, centre [65]int
	for _, x := range v {
		skew[mathbits.Len64(uint64(x-low))]++
		centre[mathbits.Len64(zigzag(x-middle))]++
	}
	for _, p := range []plan{riceCost(&skew, len(v), skewed, low), riceCost(&centre, len(v), centred, middle)} {
		if p.cost < best.cost {
			best = p
		}
	}
	return best
}

// riceCost finds the best parameter for numbers of which it is known how many bits they have.
func riceCost(lengths *[65]int, n, code int, base int64) plan {
	longest := 64
	for longest > 0 && lengths[longest] == 0 {
		longest--
	}
	half, typical := 0, 0
	for typical < 64 && 2*half < n {
		half += lengths[typical]
		typical++
	}
	best := plan{code: code, base: base, cost: 1 << 62}
	for width := max(typical-4, 0); width <= min(typical+2, 63); width++ {
		cost := 16 + n*(1+width)
		for length := width + 1; length <= longest; length++ {
			switch over := length - width; {
			case lengths[length] == 0:
			case over > 5: // 32 ones and more
				cost += lengths[length] * (escape + 64 - width)
			default: // half of them are below 1.5 times the smallest
				cost += lengths[length] * (3 << over) / 4
			}
		}
		if cost < best.cost {
			best.cost, best.width = cost, uint(width)
		}
	}
	return best
}

// middle returns about the median, from a few of the numbers.
func middle(v []int64) int64 {
	var some [31]int64
	n := min(len(v), len(some))
	for i := range n {
		some[i] = v[i*len(v)/n]
	}
	slices.Sort(some[:n])
	return some[n/2]
}

// chooseFew returns the better of a plan and a dictionary.
func (w *packer) chooseFew(v []int64, best plan) plan {
	p := plan{code: cycle}
	w.seen.n = 0
	for _, x := range v {
		if w.seen.add(x) == maxFew {
			return best
		}
	}
	for i, x := range v {
		if w.seen.list[i%w.seen.n] != x {
			p.code = few
			break
		}
	}
	p.cost = 8 + 24*w.seen.n
	if p.code == few {
		digits := share(uint64(w.seen.n))
		p.cost += (len(v) + digits - 1) / digits * 64
	}
	if p.cost < best.cost {
		return p
	}
	return best
}
