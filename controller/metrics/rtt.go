package metrics

import (
	"math"
	"math/bits"
	"sort"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

const (
	// schema says how fine native buckets are: eight from each power of two to the next, 9 % apart.
	schema = 3
	// maxBuckets is how many buckets a native histogram may have before it becomes coarser.
	maxBuckets = 100
)

// rttBuckets are the classic ones, in seconds: from a neighbour's to the other side of the world.
var rttBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}

// cell is round trips that no bound of a bucket parts, whether native or classic.
type cell struct {
	last    time.Duration // the longest
	native  int           // the number of its bucket: that ends at 2^(native/8) seconds
	classic int           // the place of its bucket, or len(rttBuckets)
}

// cells are those of all round trips above zero, shortest first.
var cells = makeCells()

// cellsAbout says where to look for the cell of a round trip, by its slot.
var cellsAbout = makeCellsAbout()

func makeCells() (list []cell) {
	c := cell{native: int(math.Floor(math.Log2(1e-9) * (1 << schema)))}
	for c.last < math.MaxInt64 {
		native, classic := lastUpTo(upperBound(c.native)), time.Duration(math.MaxInt64)
		if c.classic < len(rttBuckets) {
			classic = lastUpTo(rttBuckets[c.classic])
		}
		if last := min(native, classic); last > c.last {
			c.last = last
			list = append(list, c)
		}
		if native == c.last {
			c.native++
		}
		if classic == c.last {
			c.classic++
		}
	}
	return list
}

// upperBound returns that of a native bucket, in seconds.
func upperBound(number int) float64 {
	const each = 1 << schema
	return math.Ldexp(math.Exp2(float64(number&(each-1))/each), number>>schema)
}

// lastUpTo returns the longest round trip that is no more than so many seconds.
func lastUpTo(seconds float64) time.Duration {
	n := sort.Search(math.MaxInt64, func(n int) bool { return time.Duration(n).Seconds() > seconds })
	if time.Duration(n).Seconds() > seconds {
		n--
	}
	return time.Duration(n)
}

// slot numbers round trips above zero so that longer ones have no smaller numbers, sixteen or eight for each power of two.
func slot(rtt time.Duration) int {
	shift := max(bits.Len64(uint64(rtt))-4, 0)
	return shift<<3 + int(uint64(rtt)>>shift)
}

func makeCellsAbout() (about [61 << 3]uint16) {
	at := 0
	for i := range about {
		first := time.Duration(i)
		if shift := i>>3 - 1; shift > 0 {
			first = time.Duration(8|i&7) << shift
		}
		for cells[at].last < first {
			at++
		}
		about[i] = uint16(at)
	}
	return about
}

// cellOf returns the place of the cell of a round trip above zero.
func cellOf(rtt time.Duration) int {
	at := int(cellsAbout[slot(rtt)])
	for cells[at].last < rtt {
		at++
	}
	return at
}

// pageSize is how many neighbouring cells are counted together; most pairs need few.
const pageSize = 16

// rtts are round trips, as a histogram of Prometheus counts them.
type rtts struct {
	zero, count uint64
	sum         float64 // nanoseconds
	pages       [(64<<schema + 64) / pageSize]*[pageSize]uint64
}

// add counts one. What is no time at all, or less, is zero.
func (r *rtts) add(rtt time.Duration) {
	r.count++
	if rtt <= 0 {
		r.zero++
		return
	}
	r.sum += float64(rtt)
	at := cellOf(rtt)
	page := r.pages[at/pageSize]
	if page == nil {
		page = new([pageSize]uint64)
		r.pages[at/pageSize] = page
	}
	page[at%pageSize]++
}

// each calls fn with the cells that are not empty, shortest first.
func (r *rtts) each(fn func(c *cell, n uint64)) {
	for p, page := range r.pages {
		if page == nil {
			continue
		}
		for i, n := range page {
			if n > 0 {
				fn(&cells[p*pageSize+i], n)
			}
		}
	}
}

// histogram returns the histogram.
func (r *rtts) histogram() *dto.Histogram {
	classic := make([]uint64, len(rttBuckets)+1)
	classic[0] = r.zero
	var native []bucket
	r.each(func(c *cell, n uint64) {
		classic[c.classic] += n
		native = addBucket(native, bucket{c.native, n})
	})
	coarse := int32(schema)
	for ; len(native) > maxBuckets; coarse-- {
		wide := native[:0]
		for _, b := range native {
			wide = addBucket(wide, bucket{(b.number + 1) >> 1, b.n})
		}
		native = wide
	}
	h := &dto.Histogram{
		SampleCount: proto.Uint64(r.count), SampleSum: proto.Float64(r.sum / 1e9), Schema: proto.Int32(coarse),
		ZeroThreshold: proto.Float64(prometheus.DefNativeHistogramZeroThreshold), ZeroCount: proto.Uint64(r.zero),
	}
	below := uint64(0)
	for i, bound := range rttBuckets {
		below += classic[i]
		h.Bucket = append(h.Bucket, &dto.Bucket{CumulativeCount: proto.Uint64(below), UpperBound: proto.Float64(bound)})
	}
	h.PositiveSpan, h.PositiveDelta = spans(native)
	return h
}

// bucket is a native one that is not empty.
type bucket struct {
	number int
	n      uint64
}

// addBucket adds to the last bucket, or one behind it.
func addBucket(list []bucket, b bucket) []bucket {
	if last := len(list) - 1; last >= 0 && list[last].number == b.number {
		list[last].n += b.n
		return list
	}
	return append(list, b)
}

// spans encodes buckets as Prometheus has them: in spans without gaps, and by how much each has
// more than the one before. A gap of up to two is filled, which takes less than another span.
func spans(list []bucket) (spans []*dto.BucketSpan, deltas []int64) {
	next, last := 0, int64(0)
	add := func(n int64) {
		*spans[len(spans)-1].Length++
		deltas, last = append(deltas, n-last), n
	}
	for i, b := range list {
		if gap := b.number - next; i == 0 || gap > 2 {
			spans = append(spans, &dto.BucketSpan{Offset: proto.Int32(int32(gap)), Length: proto.Uint32(0)})
		} else {
			for range gap {
				add(0)
			}
		}
		add(int64(b.n))
		next = b.number + 1
	}
	return spans, deltas
}
