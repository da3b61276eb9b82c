package plan

import "hash/fnv"

// hash is a number that stands for a name or a pair of them. It is the same in
// every process, so that a controller that takes another's place plans alike;
// hash/maphash is not.
type hash uint64

func hashOf(parts ...string) hash {
	h := fnv.New64a()
	for _, p := range parts {
		h.Write([]byte(p)) // never fails
		h.Write([]byte{0})
	}
	return hash(h.Sum64()).mixed()
}

// with returns the hash of a pair, whose order counts.
func (h hash) with(other hash) hash { return (h.mixed() ^ other).mixed() }

// mixed is the end of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): it takes
// every number to one of its own, and neighbours far apart.
func (h hash) mixed() hash {
	h += 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// fraction takes the hash to 0 up to 1.
func (h hash) fraction() float64 { return float64(h>>11) / (1 << 53) }
