package block

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// realistic returns the results of one series: one a second, moved by up to the jitter
// (a fraction of the second), lognormal round trips, five source ports.
func realistic(rows int, jitter float64, random bool) *Block {
	rnd := rand.New(rand.NewPCG(1, 2))
	b := &Block{Remotes: [][]byte{[]byte("10.0.0.2:443")}, SynAcks: [][]byte{[]byte("window")}}
	for i := range rows {
		flow := i % 5
		if random {
			flow = rnd.IntN(5)
		}
		late := int64(60 * math.Exp(0.4*rnd.NormFloat64()))
		row := [Columns]int64{
			Report: int64(i), Outcome: 1, Attempts: 1, SynAck: 1,
			Time:      1_790_000_000_000_000 + int64(i)*1_000_000 + int64(rnd.Float64()*jitter*1e6) + late,
			RTT:       int64(1e6 * math.Exp(0.3*rnd.NormFloat64())),
			LocalPort: int64(61000 + 7*flow), Lateness: late,
			HostDelay: int64(34 * math.Exp(0.3*rnd.NormFloat64())),
		}
		if rnd.IntN(1000) == 0 {
			row[Outcome], row[RTT], row[SynAck] = 4, 0, 0
		}
		b.add(row)
	}
	return b
}

func (b *Block) add(row [Columns]int64) {
	for c, v := range row {
		b.Column[c] = append(b.Column[c], v)
	}
}

func roundTrip(t testing.TB, b *Block) []byte {
	t.Helper()
	data, err := Append([]byte("before"), b)
	if err != nil {
		t.Fatal(err)
	}
	data = data[len("before"):]
	var got Block
	if err := Decode(data, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(b, &got, cmpopts.EquateEmpty()); d != "" {
		t.Fatal(d)
	}
	return data
}

func TestWhatIsPackedComesOutAgain(t *testing.T) {
	for _, rows := range []int{1, 2, 3, 5, 6, 100, 300, 3000} {
		for _, random := range []bool{false, true} {
			roundTrip(t, realistic(rows, 0.1, random))
		}
	}
}

// Numbers of every size and habit, in all columns.
func TestAnyNumbersComeOutAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.IntRange(1, 80).Draw(t, "rows")
		b := &Block{Remotes: [][]byte{{1}, {}, {2, 3}}, SynAcks: [][]byte{{4}}}
		for c := range b.Column {
			shape := rapid.SampledFrom([]string{"any", "near", "few", "rising", "same", "cycle"}).Draw(t, "shape")
			limit := int64(math.MaxInt64)
			switch c {
			case Outcome:
				limit = 5
			case Remote:
				limit = 2
			case SynAck:
				limit = 1
			}
			width := rapid.IntRange(0, 62).Draw(t, "width")
			last := rapid.Int64Range(0, limit).Draw(t, "first")
			for i := range rows {
				v := last
				switch shape {
				case "any":
					v = rapid.Int64().Draw(t, "v")
				case "near":
					v += rapid.Int64Range(-1<<width, 1<<width).Draw(t, "v")
				case "few":
					v = rapid.Int64Range(0, 6).Draw(t, "v")
				case "rising":
					v += int64(i)<<width + rapid.Int64Range(0, 3).Draw(t, "v")
				case "cycle":
					v = int64(i % 7)
				}
				if limit < math.MaxInt64 {
					v = int64(uint64(v) % uint64(limit+1))
				}
				if c == RTT && !hasRTT(b.Column[Outcome][i]) {
					v = 0
				}
				b.Column[c] = append(b.Column[c], v)
			}
		}
		for i := range rows {
			if rapid.IntRange(0, 9).Draw(t, "note") == 0 {
				b.Notes = append(b.Notes, Note{i, rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "text")})
			}
		}
		data, err := Append(nil, b)
		if err != nil {
			t.Fatal(err)
		}
		var got Block
		if err := Decode(data, &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(b, &got, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
		for n := range data {
			if err := Decode(data[:n], &got); !errors.Is(err, ErrMalformed) {
				t.Fatalf("cut to %d of %d bytes: %v", n, len(data), err)
			}
		}
		if err := Decode(append(data, 0), &got); !errors.Is(err, ErrMalformed) {
			t.Fatalf("with a byte behind it: %v", err)
		}
	})
}

func TestRealisticResultsAreSmall(t *testing.T) {
	for _, c := range []struct {
		name   string
		jitter float64
		random bool
		limit  float64
	}{
		{"on time", 0, false, 4.7},
		{"jitter of a tenth", 0.1, false, 6.7},
		{"jitter of a fifth, ports at random", 0.2, true, 7.1},
	} {
		const rows = 300
		data := roundTrip(t, realistic(rows, c.jitter, c.random))
		each := float64(len(data)) / rows
		t.Logf("%s: %.2f bytes a result", c.name, each)
		if each > c.limit {
			t.Errorf("%s: %.2f bytes a result, more than %.2f", c.name, each, c.limit)
		}
	}
}

func TestTablesComeOutAgain(t *testing.T) {
	columns := [][]int64{{5, 6, 7}, {1e18, 1e18 + 12345, 3}, {0, 0, 0}}
	notes := []Note{{0, []byte("x")}, {2, []byte{}}}
	data := AppendTable([]byte("before"), columns, notes)[len("before"):]
	got, gotNotes, err := DecodeTable(data, 3)
	if d := cmp.Diff(columns, got) + cmp.Diff(notes, gotNotes, cmpopts.EquateEmpty()); d != "" || err != nil {
		t.Error(err, d)
	}
	for n := range data {
		if _, _, err := DecodeTable(data[:n], 3); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut to %d of %d bytes: %v", n, len(data), err)
		}
	}
	if got, _, err := DecodeTable(AppendTable(nil, [][]int64{{}}, nil), 1); err != nil || len(got[0]) != 0 {
		t.Error(got, err)
	}
}

func TestAppendRefusesWhatIsNoBlock(t *testing.T) {
	if _, err := Append(nil, &Block{}); err == nil {
		t.Error("no rows: no error")
	}
	if _, err := Append(nil, realistic(MaxRows+1, 0, false)); err == nil {
		t.Error("too many rows: no error")
	}
	b := realistic(3, 0, false)
	b.Notes = []Note{{1, nil}, {1, nil}}
	if _, err := Append(nil, b); err == nil {
		t.Error("two notes about a row: no error")
	}
}

func FuzzDecode(f *testing.F) {
	for _, rows := range []int{1, 2, 30} {
		b := realistic(rows, 0.1, rows == 30)
		if rows == 30 {
			b.Notes = []Note{{3, []byte("a")}, {7, []byte("note")}}
			b.Column[SynSeq][3] = math.MaxUint32
			b.Column[RTT][4] = math.MaxInt64
		}
		data, err := Append(nil, b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte{})
	var b, again Block
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := Decode(data, &b); err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Error(err)
			}
			return
		}
		packed, err := Append(nil, &b)
		if err != nil {
			t.Fatal(err)
		}
		if err := Decode(packed, &again); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(&b, &again, cmpopts.EquateEmpty()); d != "" {
			t.Error(d)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	const rows = 300
	block := realistic(rows, 0.1, false)
	var data []byte
	b.ReportAllocs()
	for b.Loop() {
		data, _ = Append(data[:0], block)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/result")
	b.ReportMetric(float64(len(data))/rows, "B/result")
}

func BenchmarkDecode(b *testing.B) {
	const rows = 300
	data, err := Append(nil, realistic(rows, 0.1, false))
	if err != nil {
		b.Fatal(err)
	}
	var block Block
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode(data, &block); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/result")
}

func FuzzDecodeTable(f *testing.F) {
	f.Add(AppendTable(nil, [][]int64{{5, 6, 7}, {1e18, 1e18 + 12345, 3}}, []Note{{1, []byte("x")}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		columns, notes, err := DecodeTable(data, 2)
		if err != nil {
			return
		}
		got, gotNotes, err := DecodeTable(AppendTable(nil, columns, notes), 2)
		if d := cmp.Diff(columns, got, cmpopts.EquateEmpty()) + cmp.Diff(notes, gotNotes, cmpopts.EquateEmpty()); d != "" || err != nil {
			t.Error(err, d)
		}
	})
}
