package results

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is the service with a history in memory.
type bench struct {
	history *apitest.History
	fleet   *fleet.Fleet
	client  synmeshv1.ResultServiceClient
}

func serve(t *testing.T) *bench {
	t.Helper()
	b := &bench{history: &apitest.History{}, fleet: fleet.New()}
	b.client = synmeshv1.NewResultServiceClient(apitest.Dial(t, func(r grpc.ServiceRegistrar) { Register(r, b.history, b.fleet) }))
	return b
}

// put stores a report of n results each of the series given, as "agent source target".
func (b *bench) put(at time.Time, sequence uint64, agent string, n int, series ...string) {
	var all []probe.Result
	for _, s := range series {
		source, target, _ := strings.Cut(s, " ")
		all = append(all, apitest.Results(source, target, at, n)...)
	}
	b.history.Put(at, agent, apitest.Report(1, sequence, all))
}

// name tells results apart.
func name(r *synmeshv1.Result) string {
	return fmt.Sprintf("%s %s %s %d", r.GetAgent(), r.GetSource(), r.GetTarget(), r.GetTime().AsTime().UnixNano())
}

func names(rs []*synmeshv1.Result) (all []string) {
	for _, r := range rs {
		all = append(all, name(r))
	}
	return all
}

// pages reads all pages. Between two of them it calls meanwhile, which may be nil.
func (b *bench) pages(t testing.TB, req *synmeshv1.ListResultsRequest, meanwhile func()) (all []string, pages int) {
	t.Helper()
	req = proto.CloneOf(req)
	for {
		resp, err := b.client.ListResults(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if req.PageSize > 0 && len(resp.GetResults()) > int(req.PageSize) {
			t.Fatalf("a page of %d has %d results", req.PageSize, len(resp.GetResults()))
		}
		all = append(all, names(resp.GetResults())...)
		pages++
		if resp.GetNextPageToken() == "" {
			return all, pages
		}
		if len(resp.GetResults()) == 0 {
			t.Fatal("a page that is not the last is empty")
		}
		req.PageToken = resp.GetNextPageToken()
		if meanwhile != nil {
			meanwhile()
		}
	}
}

func TestListResultsByWhatIsAskedFor(t *testing.T) {
	b := serve(t)
	now := time.Now()
	b.put(now.Add(-2*time.Hour), 1, "fra-1", 1, "runs/a x:1")
	b.put(now.Add(-30*time.Minute), 2, "fra-1", 2, "runs/a x:1", "runs/a y:1", "measurements/m x:1")
	b.put(now.Add(-20*time.Minute), 1, "nyc-1", 3, "runs/a x:1")
	b.put(now.Add(time.Hour), 2, "nyc-1", 1, "runs/a x:1")
	ago := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }
	tests := []struct {
		name string
		req  *synmeshv1.ListResultsRequest
		want int
	}{
		{"nothing in particular is the last hour", &synmeshv1.ListResultsRequest{}, 9},
		{"one source", &synmeshv1.ListResultsRequest{Source: "runs/a"}, 7},
		{"one agent", &synmeshv1.ListResultsRequest{Agent: "fra-1"}, 6},
		{"one target", &synmeshv1.ListResultsRequest{Target: "x:1"}, 7},
		{"all three", &synmeshv1.ListResultsRequest{Source: "runs/a", Agent: "fra-1", Target: "y:1"}, 2},
		{"what nobody has", &synmeshv1.ListResultsRequest{Source: "runs/b"}, 0},
		{"an earlier start", &synmeshv1.ListResultsRequest{StartTime: ago(3 * time.Hour)}, 10},
		{"an earlier end", &synmeshv1.ListResultsRequest{EndTime: ago(25 * time.Minute)}, 6},
		{"a later end", &synmeshv1.ListResultsRequest{EndTime: ago(-2 * time.Hour)}, 10},
		{"the beginning of time to its end", &synmeshv1.ListResultsRequest{
			StartTime: &timestamppb.Timestamp{Seconds: -62135596800}, EndTime: &timestamppb.Timestamp{Seconds: 253402300799, Nanos: 999999999}}, 11},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, _ := b.pages(t, tt.req, nil); len(got) != tt.want {
				t.Errorf("got %d results, want %d:\n%s", len(got), tt.want, strings.Join(got, "\n"))
			}
		})
	}
}

func TestAResultIsTheOneThatWasReported(t *testing.T) {
	b := serve(t)
	at := time.Now().UTC()
	rs := apitest.Results("runs/a", "x:1", at, 1)
	rs[0].SynAck = &probe.SynAck{Window: 64240, MSS: 1460, WindowScale: 7, TTL: 64}
	b.history.Put(at, "fra-1", apitest.Report(1, 1, rs))
	resp, err := b.client.ListResults(t.Context(), &synmeshv1.ListResultsRequest{EndTime: timestamppb.New(at.Add(time.Second))})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(resp.GetResults()); n != 1 {
		t.Fatalf("got %d results, want one", n)
	}
	r := resp.GetResults()[0]
	if r.GetAgent() != "fra-1" || !r.GetTime().AsTime().Equal(at) || r.GetRtt().AsDuration() != time.Microsecond || r.GetOutcome() != synmeshv1.Outcome_OUTCOME_OPEN ||
		r.GetStamp() != synmeshv1.Stamp_STAMP_KERNEL || r.GetSynAck().GetMss() != 1460 {
		t.Errorf("got %v", r)
	}
}

// However the results lie in reports, and however small the pages: each comes
// exactly once, oldest first, though time passes and more is stored meanwhile.
func TestPagesHaveEveryResultOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := serve(t)
		rapid.Check(helper{t}, func(rt *rapid.T) {
			*b.history = apitest.History{} // nobody reads it now
			began := time.Now()
			var want []string
			req := &synmeshv1.ListResultsRequest{
				Source:   rapid.SampledFrom([]string{"", "runs/a"}).Draw(rt, "source"),
				Agent:    rapid.SampledFrom([]string{"", "fra-1"}).Draw(rt, "agent"),
				Target:   rapid.SampledFrom([]string{"", "x:1"}).Draw(rt, "target"),
				PageSize: int32(rapid.IntRange(1, 12).Draw(rt, "page size")),
			}
			add := func(at time.Time, sequence int, expected bool) {
				agent := rapid.SampledFrom([]string{"fra-1", "nyc-1"}).Draw(rt, "reporter")
				n := rapid.IntRange(0, 9).Draw(rt, "results")
				series := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"runs/a x:1", "runs/a y:1", "runs/b x:1"}), 1, 3, rapid.ID).Draw(rt, "series")
				b.put(at, uint64(sequence), agent, n, series...)
				for _, s := range series {
					source, target, _ := strings.Cut(s, " ")
					if !expected || (req.Agent != "" && agent != req.Agent) || (req.Source != "" && source != req.Source) || (req.Target != "" && target != req.Target) {
						continue
					}
					for _, r := range apitest.Results(source, target, at, n) {
						want = append(want, fmt.Sprintf("%s %s %s %d", agent, source, target, r.Time.UnixNano()))
					}
				}
			}
			sequence := 0
			for range rapid.IntRange(0, 8).Draw(rt, "reports") { // the first of them just inside the hour
				sequence++
				add(began.Add(time.Duration(sequence-1)*time.Second-usualLook), sequence, true)
			}
			got, _ := b.pages(t, req, func() {
				time.Sleep(time.Second)
				sequence++
				add(time.Now(), sequence, false)
			})
			if !slices.Equal(got, want) {
				rt.Fatalf("with %v got %d results\n%s\nwant %d\n%s", req, len(got), strings.Join(got, "\n"), len(want), strings.Join(want, "\n"))
			}
		})
	})
}

// helper keeps rapid from asking for the deadline, which there is none of in a bubble.
type helper struct{ rapid.TB }

func TestARetentionThatStrikesBetweenPagesTakesOnlyWhatIsOld(t *testing.T) {
	b := serve(t)
	at := time.Now().Add(-time.Minute)
	for i := range 3 {
		b.put(at.Add(time.Duration(i)*time.Second), uint64(i+1), "fra-1", 3, "runs/a x:1")
	}
	var once bool
	got, _ := b.pages(t, &synmeshv1.ListResultsRequest{PageSize: 2}, func() {
		if !once {
			b.history.Forget(1)
		}
		once = true
	})
	if len(got) != 2+3+3 {
		t.Errorf("got %d results, want the 2 of the first page and the 6 that are left:\n%s", len(got), strings.Join(got, "\n"))
	}
}

func TestPagesFitIntoAMessage(t *testing.T) {
	b := serve(t)
	long := strings.Repeat("x", 250) + ":1"
	const n = 5000
	b.put(time.Now(), 1, "fra-1", n, "runs/a "+long)
	req := &synmeshv1.ListResultsRequest{PageSize: 10_000, EndTime: timestamppb.New(time.Now().Add(time.Hour))}
	resp, err := b.client.ListResults(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if size := proto.Size(resp); size > 1<<20 || size < 1<<19 {
		t.Errorf("the first page has %d bytes, want somewhat less than 1 MiB", size)
	}
	if got, pages := b.pages(t, req, nil); len(got) != n || pages < 2 {
		t.Errorf("got %d results in %d pages, want %d", len(got), pages, n)
	}
}

func TestAPageTokenThatIsNoneOfOursIsRefused(t *testing.T) {
	b := serve(t)
	for _, token := range []string{"x", "1", "1.2", "1.2.3.4", "1.2.3 ", " 1.2.3", "+1.2.3", "01.2.3", "-1.2.3", "1.-2.3", "3.0.2", "1.2.99999999999999999999", "a.b.c"} {
		_, err := b.client.ListResults(t.Context(), &synmeshv1.ListResultsRequest{PageToken: token})
		if s := status.Convert(err); s.Code() != codes.InvalidArgument || !strings.Contains(s.Message(), "use next_page_token as it came") {
			t.Errorf("token %q: got %v", token, err)
		}
	}
}

func TestTokensAreReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := place{from: rapid.Int64Min(0).Draw(t, "from"), skip: rapid.Int64Min(0).Draw(t, "skip")}
		p.end = rapid.Int64Min(p.from).Draw(t, "end")
		if got, err := parseToken(p.token()); err != nil || got != p {
			t.Fatalf("%+v became %s and that %+v, %v", p, p.token(), got, err)
		}
	})
}

func TestWhatIsWrongWithARequestIsSaid(t *testing.T) {
	b := serve(t)
	start, end := timestamppb.New(time.Unix(7200, 0)), timestamppb.New(time.Unix(3600, 0))
	_, err := b.client.ListResults(t.Context(), &synmeshv1.ListResultsRequest{StartTime: start, EndTime: end})
	if s := status.Convert(err); s.Code() != codes.InvalidArgument || s.Message() != "start_time 1970-01-01T02:00:00Z is after end_time 1970-01-01T01:00:00Z" {
		t.Errorf("got %v", err)
	}
}

func TestAHistoryThatCannotBeReadIsUnavailable(t *testing.T) {
	b := serve(t)
	b.fleet.Connect(fleet.Agent{Name: "fra-1", Labels: map[string]string{"dc": "fra"}}, &synmeshv1.SessionResponse{})
	b.put(time.Now(), 1, "fra-1", 1, "runs/a x:1")
	b.history.ScanError = errors.New("history: scan: input/output error")
	calls := map[string]func(context.Context) error{
		"ListResults": func(ctx context.Context) error {
			_, err := b.client.ListResults(ctx, &synmeshv1.ListResultsRequest{})
			return err
		},
		"Matrix": func(ctx context.Context) error {
			_, err := b.client.Matrix(ctx, &synmeshv1.MatrixRequest{Source: "runs/a", GroupBy: "dc"})
			return err
		},
	}
	for name, call := range calls {
		if s := status.Convert(call(t.Context())); s.Code() != codes.Unavailable || !strings.Contains(s.Message(), "input/output error") {
			t.Errorf("%s: got %v", name, s.Err())
		}
	}
}
