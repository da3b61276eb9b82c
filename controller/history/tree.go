package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"os"
	"sync"
)

const (
	headerSize  = 16 // of a page, and of an element in it, and of a bucket's value
	metaSize    = 64
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	branchPage  = 1
	leafPage    = 2
	// maxDepth is more than the tree of a file of any size has.
	maxDepth = 24
	// maxNode bounds what is read as one page. bbolt splits pages down to two
	// records at least.
	maxNode = 16 * maxRecord
)

// tree reads a bbolt file and trusts nothing in it. bbolt trusts everything: one
// flipped bit can make it panic, follow a wild pointer out of its memory map,
// recurse without end, or miss rows that are well. The tree misses what is
// damaged and, if that is a branch, what only it leads to.
//
// The format is that of bbolt's internal/common: numbers are in the machine's
// byte order; a page has a header (id 8 bytes, kind 2, count of elements 2,
// pages that follow and belong to it 4) and elements. Those of a branch are
// place of the key (4, from the element on), its size (4) and the child's page
// (8); those of a leaf flags (4), place (4), size of key (4) and value (4). A
// bucket's value is its root page (8), or 0 and the page itself behind 16 bytes.
type tree struct {
	r        io.ReaderAt
	pageSize uint64
	root     uint64 // the page with the buckets
	pages    uint64 // in use, from the start
	tx       uint64 // the transaction that wrote it last
	seen     uint64 // pages read; in circles they are more than there are
	stale    bool   // the other meta page is damaged, and may have been the later one
	bufs     *pageBuffers
	damage   error // the first found
	place    int64 // of the value of the entry that is being yielded, in the file
}

var errCircle = fmt.Errorf("%w: pages lead round in circles", errDamaged)

// pageBuffers are those of one path through a tree. They are used again: readers come by the thousand.
type pageBuffers [maxDepth][]byte

var freeBuffers = sync.Pool{New: func() any { return new(pageBuffers) }}

// maxFree is the largest buffer that is kept for that.
const maxFree = 1 << 20

// free ends the use of a tree, and of all that is in it.
func (t *tree) free() {
	if t.bufs == nil {
		return
	}
	for i, b := range t.bufs {
		if cap(b) > maxFree {
			t.bufs[i] = nil
		}
	}
	freeBuffers.Put(t.bufs)
	t.bufs = nil
}

// readTree reads the meta pages, of which the later good one counts.
func readTree(r io.ReaderAt) (*tree, error) {
	t, err := readMeta(r, 0)
	sizes := []int{os.Getpagesize(), 4096, 16384, archivePage, 65536}
	if err == nil {
		sizes = []int{int(t.pageSize)}
	}
	for _, size := range sizes {
		other, otherErr := readMeta(r, int64(size))
		if otherErr == nil && int(other.pageSize) == size && (err != nil || other.tx > t.tx) {
			other.stale = err != nil
			return other, nil
		}
		if err == nil {
			t.stale = otherErr != nil
		}
	}
	return t, err
}

// wellMeta tells whether a meta page is what was written.
func wellMeta(m []byte) bool {
	order := binary.NativeEndian
	if order.Uint32(m) != boltMagic || order.Uint32(m[4:]) != boltVersion {
		return false
	}
	sum := fnv.New64a()
	sum.Write(m[:metaSize-8])
	size := order.Uint32(m[8:])
	return order.Uint64(m[metaSize-8:]) == sum.Sum64() && size >= 1024 && size <= 1<<20
}

// mendMeta flips back the bit that has flipped in a meta page, if it is the only one: the page
// before would hide the last commit. It tells whether the page is well now.
func mendMeta(m []byte) bool {
	for bit := range metaSize * 8 {
		m[bit/8] ^= 1 << (bit % 8)
		if wellMeta(m) {
			return true
		}
		m[bit/8] ^= 1 << (bit % 8)
	}
	return false
}

func readMeta(r io.ReaderAt, at int64) (*tree, error) {
	var page [headerSize + metaSize]byte
	if _, err := r.ReadAt(page[:], at); err != nil {
		return nil, readError(err)
	}
	m, order := page[headerSize:], binary.NativeEndian
	if !wellMeta(m) && !mendMeta(m) {
		return nil, fmt.Errorf("%w: no database", errDamaged)
	}
	return &tree{
		r:        r,
		pageSize: uint64(order.Uint32(m[8:])),
		root:     order.Uint64(m[16:]),
		pages:    order.Uint64(m[40:]),
		tx:       order.Uint64(m[48:]),
	}, nil
}

// readError makes damage of what the disk does not give, lest a bad sector
// keeps the store from starting.
func readError(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return err
	}
	return fmt.Errorf("%w: %v", errDamaged, err)
}

// bucket returns the node at the root of a bucket.
func (t *tree) bucket(name []byte) (root node, err error) {
	top, err := t.node(t.root, 0)
	if err != nil {
		return node{}, err
	}
	err = fmt.Errorf("%w: no bucket %q", errDamaged, name)
	t.walk(top, span{}, 0, nil, func(k, v []byte) bool {
		if !bytes.Equal(k, name) || len(v) < headerSize {
			return true
		}
		if id := binary.NativeEndian.Uint64(v); id != 0 {
			root, err = t.node(id, 1)
		} else {
			root, err = newNode(bytes.Clone(v[headerSize:]), t.place+headerSize)
		}
		return false
	})
	return root, err
}

// entries returns a bucket's entries from a key on, and maybe some before it, in
// order as far as they are well; nil stands for one that cannot be read. They
// are valid until the next one. t.damage tells then if others are missing.
func (t *tree) entries(root node, from []byte) iter.Seq2[[]byte, []byte] {
	if t.stale && t.damage == nil {
		t.damage = fmt.Errorf("%w: what was written last may be missing", errDamaged)
	}
	return func(yield func(k, v []byte) bool) { t.walk(root, span{}, 1, from, yield) }
}

// walk yields the entries of a node at a depth and of those below it. It
// returns false when it is not to go on.
func (t *tree) walk(n node, in span, depth int, from []byte, yield func(k, v []byte) bool) bool {
	if n.leaf {
		for i := range n.count {
			t.place = n.place(i)
			if !yield(n.entry(i)) {
				return false
			}
		}
		return true
	}
	for i := n.start(from); i < n.count; i++ {
		at := n.span(i, in)
		child, err := t.child(n, i, depth+1)
		switch {
		case errors.Is(err, os.ErrClosed) || errors.Is(err, errCircle):
			t.damage = err
			return false
		case err == nil && !at.fits(child):
			err = fmt.Errorf("%w: a page is not where it belongs", errDamaged)
			fallthrough
		case err != nil:
			if t.damage == nil {
				t.damage = err
			}
		case !t.walk(child, at, depth+1, from, yield):
			return false
		}
	}
	return true
}

func (t *tree) child(n node, i, depth int) (node, error) {
	if depth == maxDepth {
		return node{}, fmt.Errorf("%w: a tree too deep", errDamaged)
	}
	return t.node(n.child(i), depth)
}

// node reads a page and those that belong to it. It is valid until the next one
// of that depth is read.
func (t *tree) node(id uint64, depth int) (node, error) {
	if t.seen++; t.seen > t.pages {
		return node{}, errCircle
	}
	if id < 2 || id >= t.pages {
		return node{}, fmt.Errorf("%w: there is no page %d", errDamaged, id)
	}
	if t.bufs == nil {
		t.bufs = freeBuffers.Get().(*pageBuffers)
	}
	buf := grow(&t.bufs[depth], t.pageSize)
	at := int64(id * t.pageSize)
	if _, err := t.r.ReadAt(buf, at); err != nil {
		return node{}, readError(err)
	}
	more := min(uint64(binary.NativeEndian.Uint32(buf[12:])), t.pages-id-1, maxNode/t.pageSize) * t.pageSize
	if more > 0 {
		buf = grow(&t.bufs[depth], t.pageSize+more)
		if _, err := t.r.ReadAt(buf[t.pageSize:], at+int64(t.pageSize)); err != nil {
			return node{}, readError(err)
		}
	}
	return newNode(buf, at)
}

// grow makes a buffer at least that long, and keeps what is in it.
func grow(buf *[]byte, size uint64) []byte {
	if uint64(cap(*buf)) < size {
		*buf = append(make([]byte, 0, size), *buf...)
	}
	*buf = (*buf)[:size]
	return *buf
}
