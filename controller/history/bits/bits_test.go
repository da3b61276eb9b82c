package bits

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// number is one of those that a Writer writes, and how.
type number struct {
	how  string
	v    uint64
	n    uint
	list []uint64
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := NewWriter([]byte{0xff})
		var all []number
		for range rapid.IntRange(0, 30).Draw(t, "numbers") {
			x := number{how: rapid.SampledFrom([]string{"bits", "unary", "uvarint", "unaries", "lows"}).Draw(t, "how")}
			switch x.how {
			case "bits":
				x.n = uint(rapid.IntRange(0, 64).Draw(t, "n"))
				x.v = rapid.Uint64().Draw(t, "v") >> 1 >> (63 - min(x.n, 63))
				if x.n == 64 {
					x.v |= 1 << 63
				}
				w.Write(x.v, x.n)
			case "unary":
				x.v = rapid.Uint64Range(0, 200).Draw(t, "v")
				w.Unary(x.v)
			case "uvarint":
				x.v = rapid.Uint64().Draw(t, "v") >> rapid.IntRange(0, 63).Draw(t, "shift")
				w.Uvarint(x.v)
			case "unaries":
				x.list = rapid.SliceOf(rapid.OneOf(rapid.Uint64Range(0, 3), rapid.Uint64Range(0, 130))).Draw(t, "list")
				for _, v := range x.list {
					w.Unary(v)
				}
			case "lows":
				x.n = uint(rapid.IntRange(0, 40).Draw(t, "n"))
				for _, v := range rapid.SliceOf(rapid.Uint64()).Draw(t, "list") {
					v >>= 64 - x.n
					w.Write(v, x.n)
					x.list = append(x.list, 5<<x.n|v)
				}
			}
			all = append(all, x)
		}
		b := w.Bytes()
		r := NewReader(b[1:])
		for i, x := range all {
			var got uint64
			switch x.how {
			case "bits":
				got = r.Read(x.n)
			case "unary":
				got = r.Unary(1000)
			case "uvarint":
				got = r.Uvarint()
			case "unaries":
				list := make([]uint64, len(x.list))
				sum := r.Unaries(list)
				if !slices.Equal(list, x.list) {
					t.Fatalf("number %d: %v, not %v", i, list, x.list)
				}
				for _, v := range list {
					sum -= v
				}
				got = sum
			case "lows":
				list := make([]uint64, len(x.list))
				for i := range list {
					list[i] = 5
				}
				got = r.Lows(list, x.n)
				if !slices.Equal(list, x.list) {
					t.Fatalf("number %d: %v, not %v", i, list, x.list)
				}
				for _, v := range list {
					got -= v
				}
			}
			if got != x.v {
				t.Fatalf("number %d, as %s: %d, not %d", i, x.how, got, x.v)
			}
		}
		if b[0] != 0xff || !r.End() {
			t.Fatalf("%d bits are left", r.Left())
		}
	})
}

func TestSkippingEndsWhereReadingDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOf(rapid.Uint64Range(0, 130)).Draw(t, "list")
		lead, more := rapid.UintRange(0, 9).Draw(t, "lead"), rapid.Uint64Range(0, 300).Draw(t, "more")
		w := NewWriter(nil)
		w.Write(0, lead)
		for _, n := range list {
			w.Unary(n)
		}
		for range more {
			w.Write(1, 1)
		}
		w.Write(0xa5, 8)
		r := NewReader(w.Bytes())
		r.Read(lead)
		r.SkipUnaries(len(list))
		r.Skip(more)
		if got := r.Read(8); got != 0xa5 || !r.End() {
			t.Fatalf("%#x is behind them, %d bits are left", got, r.Left())
		}
	})
}

func TestReadingBeyondTheEndIsTold(t *testing.T) {
	for what, read := range map[string]func(*Reader){
		"bits":            func(r *Reader) { r.Read(17) },
		"unary":           func(r *Reader) { r.Unary(100) },
		"unaries":         func(r *Reader) { r.Unaries(make([]uint64, 17)) },
		"unaries skipped": func(r *Reader) { r.SkipUnaries(17) },
		"bits skipped":    func(r *Reader) { r.Skip(17) },
		"uvarint":         func(r *Reader) { r.Read(16); r.Uvarint() },
		"bytes":           func(r *Reader) { r.Bytes(3) },
		"a uvarint with a needless byte": func(r *Reader) {
			*r = NewReader([]byte{0x80, 0})
			r.Uvarint()
		},
		"a uvarint of 65 bits": func(r *Reader) {
			*r = NewReader([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2})
			r.Uvarint()
		},
	} {
		data := []byte{0xff, 0xff}
		if what == "unaries" {
			clear(data)
		}
		r := NewReader(data)
		read(&r)
		if !r.Overrun() || r.End() {
			t.Errorf("%s: not told", what)
		}
	}
	r := NewReader([]byte{1})
	if r.Read(3); r.End() {
		t.Error("a one that is left over is not told")
	}
	if r := NewReader([]byte{0xff}); r.Unary(5) != 5 || r.Left() != 3 {
		t.Error("the limit of a unary number is not kept")
	}
}
