package agents

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/synmesh/synmesh/controller/feed"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// received is what a message is by the codec, in the pieces in which it came.
func received(t *testing.T, pieces ...[]byte) (*request, error) {
	t.Helper()
	var data mem.BufferSlice
	for _, p := range pieces {
		data = append(data, mem.SliceBuffer(p))
	}
	r := &request{SessionRequest: &synmeshv1.SessionRequest{}}
	return r, NewCodec().Unmarshal(data, r)
}

func marshalled(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAReportIsTakenAsItCame(t *testing.T) {
	m := report(7, 3)
	m.RunEnds = []*synmeshv1.RunEnd{{Run: "runs/b"}}
	whole := marshalled(t, &synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Report{Report: m}})
	r, err := received(t, whole[:3], whole[3:])
	if err != nil || r.wrong != nil {
		t.Fatal(err, r.wrong)
	}
	e := r.report
	if e.Epoch != 5 || e.Sequence != 7 || e.Results != 3 || !bytes.Equal(e.Bytes, marshalled(t, m)) {
		t.Errorf("got epoch %d, sequence %d, %d results, %d bytes", e.Epoch, e.Sequence, e.Results, len(e.Bytes))
	}
	if r.GetReport().GetSequence() != 7 || len(r.GetReport().GetBlocks()) > 0 {
		t.Errorf("the message is %v", r.SessionRequest)
	}
	if !slices.ContainsFunc(r.sources, func(s []byte) bool { return string(s) == "runs/a" }) || !slices.ContainsFunc(r.sources, func(s []byte) bool { return string(s) == "runs/b" }) {
		t.Errorf("its sources are %q", r.sources)
	}
	r.release()
	if r.buffer != nil || r.report.Bytes != nil {
		t.Error("it still has what it has let go of")
	}
}

func TestWhatIsNotOnlyAReportIsUnmarshalled(t *testing.T) {
	one := marshalled(t, &synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Report{Report: report(7, 1)}})
	beat := marshalled(t, &synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Heartbeat{Heartbeat: &synmeshv1.Heartbeat{Produced: 9}}})
	early := marshalled(t, &synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Preview{Preview: preview(3, 2)}})
	for name, data := range map[string][]byte{"a heartbeat": beat, "a preview": early, "a preview after a report": slices.Concat(one, early), "a report in two parts": slices.Concat(one, one), "a heartbeat after a report": slices.Concat(one, beat), "nothing": nil} {
		var want synmeshv1.SessionRequest
		if err := proto.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		r, err := received(t, data)
		if err != nil || r.report.Bytes != nil {
			t.Errorf("%s: %v, %d bytes of a report", name, err, len(r.report.Bytes))
		}
		if d := gocmp.Diff(&want, r.SessionRequest, protocmp.Transform()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestAReportThatIsWrongIsToldFromOneThatIsNone(t *testing.T) {
	bad := report(7, 1)
	bad.Blocks[0].Rtts = nil
	r, err := received(t, marshalled(t, &synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Report{Report: bad}}))
	if err != nil || r.wrong == nil || r.wrong.Error() != convert.CheckReport(bad).Error() {
		t.Errorf("got %v and %v, want %v", err, r.wrong, convert.CheckReport(bad))
	}
	if _, err := received(t, []byte{2<<3 | 2, 2, 3<<3 | 2, 9}); !errors.Is(err, convert.ErrEncoding) {
		t.Errorf("got %v for a block that ends too soon", err)
	}
}

// Whatever comes is what it is by gRPC's own codec; of a report, what is taken apart.
func FuzzRequest(f *testing.F) {
	for _, m := range []*synmeshv1.SessionRequest{
		{Message: &synmeshv1.SessionRequest_Report{Report: report(7, 2)}},
		{Message: &synmeshv1.SessionRequest_Preview{Preview: preview(3, 2)}},
		{Message: &synmeshv1.SessionRequest_Resume{Resume: &synmeshv1.Resume{Epoch: 5}}},
		{Message: &synmeshv1.SessionRequest_Heartbeat{Heartbeat: &synmeshv1.Heartbeat{Produced: 9}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var want synmeshv1.SessionRequest
		refused := proto.Unmarshal(data, &want)
		r, err := received(t, data)
		if (err == nil) != (refused == nil) {
			t.Fatalf("got %v, want %v", err, refused)
		}
		if err != nil {
			return
		}
		if r.report.Bytes == nil {
			if !proto.Equal(&want, r.SessionRequest) {
				t.Fatalf("got %v, want %v", r.SessionRequest, &want)
			}
			if p := want.GetPreview(); p != nil {
				shown := feed.New()
				sub := shown.Subscribe("runs/a")
				defer sub.Close()
				(&reporter{Service: &Service{Config: Config{Feed: shown}}, hello: hello(), session: &fleet.Session{}}).preview(r.GetPreview())
				for len(sub.Events()) > 0 {
					for range convert.Rows("fra-1", (<-sub.Events()).Report) {
					}
				}
			}
			return
		}
		e, m := r.report, want.GetReport()
		if e.Epoch != m.GetEpoch() || e.Sequence != m.GetSequence() || (r.wrong == nil) != (convert.CheckReport(m) == nil) {
			t.Fatalf("got %d of %d, wrong: %v, want %v", e.Sequence, e.Epoch, r.wrong, m)
		}
	})
}
