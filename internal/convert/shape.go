package convert

import "encoding/binary"

const (
	// maxShape is how long a block may be, in bytes, that has a shape: those of one result are shorter.
	maxShape = 255
	// shapesEach is how many shapes are remembered of each length.
	shapesEach = 8
)

// Shape tells blocks that are right by their bits: those of tags, lengths and what else
// decides are the same as in a block that has been looked at, and the others do not matter.
// So all blocks of a shape have their fields at the same places.
type Shape struct {
	// Rows is how many results they have, and Answers how many SYN-ACKs.
	Rows, Answers int

	same   []sameBits
	fields [fieldsOfBlocks][2]uint8 // from where to where the value of each is; the last, if there are several
}

// fieldsOfBlocks is one more than the greatest number of a field of a block.
const fieldsOfBlocks = 20

// Field returns the value of a field of an encoded block of the shape, as it is encoded and without what
// tells its length; of one that is not there it is empty.
func (s *Shape) Field(block []byte, number int) []byte {
	f := s.fields[number]
	return block[f[0]:f[1]]
}

// Number returns the first number of such a field, or 0.
func (s *Shape) Number(block []byte, number int) (v uint64) {
	for i, b := range s.Field(block, number) {
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			break
		}
	}
	return v
}

// Shape returns that of an encoded block which is right, as Check says, or nil if it has none.
func (c *Checker) Shape(block []byte) *Shape {
	if k := c.known.find(block); k != nil {
		return k
	}
	if w, ok := c.usual(block); ok {
		c.known.learn(block, &w)
		return c.known.find(block)
	}
	return nil
}

// sameBits says which of eight bytes' bits are to be what.
type sameBits struct{ mask, want uint64 }

// shapes are those that are known, by the length of the block.
type shapes [maxShape + 1]struct {
	list [shapesEach]*Shape
	next int // to be forgotten
}

// find returns the shape of a block, or nil.
func (s *shapes) find(data []byte) *Shape {
	if len(data) > maxShape {
		return nil
	}
	of := &s[len(data)]
	for i := 0; i < shapesEach && of.list[i] != nil; i++ {
		known := of.list[i]
		if known.fits(data) {
			if i > 0 { // it is likely to be the next one's, too
				of.list[i], of.list[i-1] = of.list[i-1], known
			}
			return known
		}
	}
	return nil
}

func (s *Shape) fits(data []byte) bool {
	last := len(s.same) - 1
	end := data[len(data)-8:]
	for _, w := range s.same[:last] {
		if (binary.LittleEndian.Uint64(data)^w.want)&w.mask != 0 {
			return false
		}
		data = data[8:]
	}
	return (binary.LittleEndian.Uint64(end)^s.same[last].want)&s.same[last].mask == 0
}

// learn remembers the shape of a block that is right, as usual says, and has its source there.
func (s *shapes) learn(data []byte, w *usualBlock) {
	if len(data) > maxShape || len(data) < 8 {
		return
	}
	var mask [maxShape]byte
	one := &Shape{Rows: int(w.outcomes), Answers: int(w.answers)}
	for i := 0; i < len(data); {
		var f wireField
		next, _ := f.take(data, i) // usual has taken it
		if f.key < 0x80 && uint64(data[i]) != f.key {
			return // a tag that is longer than it needs to be
		}
		m := mask[next-len(f.bytes) : next]
		for k := range mask[i:next] {
			mask[i+k] = 0xff
		}
		switch f.key & 7 {
		case varint:
			m = mask[i+1 : next]
		case fixed64:
			m = mask[next-8 : next]
		}
		one.fields[f.key>>3] = [2]uint8{uint8(next - len(m)), uint8(next)}
		loosen(&f, m)
		i = next
	}
	for i := 0; i < len(data); i += 8 {
		at := min(i, len(data)-8)
		w := sameBits{mask: binary.LittleEndian.Uint64(mask[at:])}
		w.want = binary.LittleEndian.Uint64(data[at:])
		one.same = append(one.same, w)
	}
	of := &s[len(data)]
	of.list[of.next] = one
	of.next = (of.next + 1) % shapesEach
}

// loosen leaves those bits of a field's value out of its mask that nothing depends on.
func loosen(f *wireField, m []byte) {
	switch f.key {
	case 1<<3 | delimited, 2<<3 | delimited: // what is ASCII stays so
		loosenText(f.bytes, m)
	case 3<<3 | delimited, 5<<3 | fixed64, 17<<3 | delimited, 19<<3 | delimited:
		clear(m)
	case 4<<3 | varint:
		loosenNumber(m, 16)
	case 6<<3 | delimited, 8<<3 | delimited, 10<<3 | delimited, 12<<3 | delimited, 13<<3 | delimited, 14<<3 | delimited:
		loosenNumbers(m)
	case 9<<3 | delimited:
		for b := f.bytes; len(b) > 0; {
			_, n := shortVarint(b)
			loosenNumber(m[:n], 16)
			b, m = b[n:], m[n:]
		}
	case answersKey:
		loosenAnswer(f.bytes, m)
	}
}

func loosenText(text, m []byte) {
	for _, c := range text {
		if c >= 0x80 {
			return
		}
	}
	loosenNumbers(m)
}

// loosenNumbers lets all bits change but those that tell how long numbers are.
func loosenNumbers(m []byte) {
	for i := range m {
		m[i] = 0x80
	}
}

// loosenNumber does so with one number, as far as it cannot become longer than so many bits.
func loosenNumber(m []byte, most int) {
	loosenNumbers(m[:min(len(m), most/7)])
}

func loosenAnswer(data, m []byte) {
	for i := 0; i < len(data); {
		var f wireField
		next, ok := f.take(data, i)
		if !ok || uint64(data[i]) != f.key {
			return
		}
		switch f.key {
		case 2<<3 | varint, 3<<3 | varint:
			loosenNumber(m[i+1:next], 16)
		case 7<<3 | varint:
			loosenNumber(m[i+1:next], 8)
		}
		i = next
	}
}
