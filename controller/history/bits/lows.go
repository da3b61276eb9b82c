package bits

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
	for each := int(57 / n); len(v) > 0; {
		now := v[:min(len(v), each)]
		w := r.window()
		for i := range now {
			now[i] = now[i]<<n | w>>(64-n)
			sum += now[i]
			w <<= n
		}
		r.skip(n * uint(len(now)))
		v = v[len(now):]
	}
	return sum
}
