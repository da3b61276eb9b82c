package history

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// node is a page of a tree, and those that belong to it.
type node struct {
	leaf  bool
	count int
	data  []byte
	at    int64 // where that is in the file
}

func newNode(data []byte, at int64) (node, error) {
	if len(data) < headerSize {
		return node{}, fmt.Errorf("%w: a page of %d bytes", errDamaged, len(data))
	}
	kind := binary.NativeEndian.Uint16(data[8:])
	count := int(binary.NativeEndian.Uint16(data[10:]))
	if kind != branchPage && kind != leafPage || headerSize*(1+count) > len(data) {
		return node{}, fmt.Errorf("%w: a page of kind %#x with %d elements", errDamaged, kind, count)
	}
	return node{kind == leafPage, count, data, at}, nil
}

func (n node) element(i int) []byte { return n.data[headerSize*(1+i):] }

// child returns the page that an element of a branch leads to.
func (n node) child(i int) uint64 { return binary.NativeEndian.Uint64(n.element(i)[8:]) }

// key returns an element's key, or nil if it is not in the page.
func (n node) key(i int) []byte {
	e := n.element(i)
	if n.leaf {
		return slice(e, binary.NativeEndian.Uint32(e[4:]), 0, binary.NativeEndian.Uint32(e[8:]))
	}
	return slice(e, binary.NativeEndian.Uint32(e), 0, binary.NativeEndian.Uint32(e[4:]))
}

// entry returns an element of a leaf, or nil if it is not in the page.
func (n node) entry(i int) (k, v []byte) {
	e, k := n.element(i), n.key(i)
	v = slice(e, binary.NativeEndian.Uint32(e[4:]), uint32(len(k)), binary.NativeEndian.Uint32(e[12:]))
	if k == nil || v == nil {
		return nil, nil
	}
	return k, v
}

// place returns where the value of an element of a leaf is in the file.
func (n node) place(i int) int64 {
	e := n.element(i)
	return n.at + int64(headerSize*(1+i)) + int64(binary.NativeEndian.Uint32(e[4:])) + int64(binary.NativeEndian.Uint32(e[8:]))
}

// slice returns size bytes from start + skip on, or nil if b has no such.
func slice(b []byte, start, skip, size uint32) []byte {
	from := uint64(start) + uint64(skip)
	if to := from + uint64(size); to <= uint64(len(b)) {
		return b[from:to:to]
	}
	return nil
}

// start returns the element of a branch to begin with in order to find all from
// a key on: one before the right one, in case the key between them is damaged.
func (n node) start(from []byte) int {
	i := 0
	for i+1 < n.count && bytes.Compare(n.key(i+1), from) <= 0 {
		i++
	}
	return max(i-1, 0)
}

// span is where the keys of a page belong: its first is own, and all are between
// those of its neighbours. nil is open.
type span struct{ before, own, after []byte }

// span returns that of a branch's element, the branch's own being in.
func (n node) span(i int, in span) span {
	s := span{in.before, n.key(i), in.after}
	if i > 0 {
		s.before = n.key(i - 1)
	}
	if i+1 < n.count {
		s.after = n.key(i + 1)
	}
	return s
}

// fits tells whether the span leads to the node. Any one key, of the node or
// of the span, may be damaged.
func (s span) fits(n node) bool {
	return n.count == 0 || s.has(n.key(0)) || s.has(n.key(n.count-1))
}

func (s span) has(key []byte) bool {
	return bytes.Equal(key, s.own) ||
		(s.before == nil || bytes.Compare(key, s.before) > 0) && (s.after == nil || bytes.Compare(key, s.after) < 0)
}
