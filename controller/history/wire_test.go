package history

import (
	"math/rand/v2"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

func encoded(t testing.TB, r *synmeshv1.Report) []byte {
	t.Helper()
	data, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestTheDecoderIsFastWithWhatAgentsSend(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var d decoder
	for i := range uint64(20) {
		for _, r := range []*synmeshv1.Report{seldom(rnd, time.Now(), i+1, 100, 8), runReport(rnd, time.Now(), i+1), {Preview: 7}, {}} {
			got, err := d.decode(encoded(t, r))
			if got != &d.report {
				t.Fatal("left to proto.Unmarshal")
			}
			if diff := gocmp.Diff(r, got, protocmp.Transform(), cmpopts.EquateEmpty()); diff != "" || err != nil {
				t.Fatal(err, diff)
			}
		}
	}
}

// The decoder agrees with proto.Unmarshal about everything.
func FuzzDecoder(f *testing.F) {
	rnd := rand.New(rand.NewPCG(1, 2))
	now := time.Unix(1_790_000_000, 0)
	f.Add(encoded(f, seldom(rnd, now, 1, 3, 4)))
	f.Add(encoded(f, runReport(rnd, now, 1)))
	f.Add(encoded(f, &synmeshv1.Report{Preview: 7}))
	f.Add([]byte{})
	var d decoder
	f.Fuzz(func(t *testing.T, data []byte) {
		want := &synmeshv1.Report{}
		wantErr := proto.Unmarshal(data, want)
		got, err := d.decode(data)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%v, and proto.Unmarshal says %v", err, wantErr)
		}
		if err == nil && !proto.Equal(want, got) {
			t.Fatal(gocmp.Diff(want, got, protocmp.Transform(), cmpopts.EquateEmpty()))
		}
	})
}

func BenchmarkDecoder(b *testing.B) {
	data := encoded(b, seldom(rand.New(rand.NewPCG(1, 2)), time.Now(), 1, 1000, 10_000))
	b.Run("ours", func(b *testing.B) {
		var d decoder
		b.ReportAllocs()
		for b.Loop() {
			if _, err := d.decode(data); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(data))/1000, "B/result")
	})
	b.Run("proto", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := proto.Unmarshal(data, &synmeshv1.Report{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
