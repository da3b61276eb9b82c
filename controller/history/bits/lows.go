package bits

import "math/bits"

// Lows reads a number of n bits for each of v, and puts it below what is there: it
// is for many small ones, n being 32 at most. It returns the sum of what v has then.
func (r *Reader) Lows(v []uint64, n uint) (sum uint64) {
	if n == 0 || n > 32 {
		for i := range v {
			v[i] = v[i]<<n | r.Read(n)
			sum += v[i]
		}
		return sum
	}
	up, down := n&63, (64-n)&63 // that they are below 64 makes for quicker shifts
	for each := int(windowBits / n); len(v) > 0; {
		now := v[:min(len(v), each)]
		w := r.window()
		for i, x := range now {
			x = x<<up | w>>down
			now[i] = x
			sum += x
			w <<= up
		}
		r.skip(n * uint(len(now)))
		v = v[len(now):]
	}
	return sum
}

// SkipUnaries skips so many numbers as Unaries reads them.
func (r *Reader) SkipUnaries(n int) {
	for n > 0 && !r.over {
		ends := ^r.window() &^ (1<<(64-windowBits) - 1)
		count := bits.OnesCount64(ends)
		if count < n {
			n -= count
			r.skip(windowBits)
			continue
		}
		for ; n > 1; n-- {
			ends &^= 1 << 63 >> uint(bits.LeadingZeros64(ends))
		}
		r.skip(uint(bits.LeadingZeros64(ends)) + 1)
		return
	}
}

// Skip skips n bits.
func (r *Reader) Skip(n uint64) {
	if n > uint64(r.Left()) {
		r.over, n = true, uint64(r.Left())
	}
	r.pos += int(n)
}
