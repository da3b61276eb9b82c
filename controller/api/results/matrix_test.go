package results

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

const mesh = "measurements/mesh"

// meshOf has agents in two data centres, and one that has no label.
func meshOf(t *testing.T) *bench {
	t.Helper()
	b := serve(t)
	for _, name := range []string{"fra-1", "fra-2", "nyc-1", "lost"} {
		a := fleet.Agent{Name: name, Labels: map[string]string{"dc": strings.Split(name, "-")[0]}}
		if name == "lost" {
			a.Labels = nil
		}
		b.fleet.Connect(a, &synmeshv1.SessionResponse{})
	}
	return b
}

// found returns results of a target with these round trips, in milliseconds;
// -1 is a timeout, -2 a failure of ours, -3 a port that is closed, after 9 ms,
// -4 an error that a router sent.
func found(target string, rtts ...int) (rs []probe.Result) {
	rs = apitest.Results(mesh, target, time.Now(), len(rtts))
	for i, ms := range rtts {
		r := &rs[i]
		r.RTT = time.Duration(ms) * time.Millisecond
		switch ms {
		case -1:
			r.Outcome, r.RTT = probe.Timeout, 0
		case -2:
			r.Outcome, r.RTT, r.Err = probe.Error, 0, "no source port is free"
		case -3:
			r.Outcome, r.RTT = probe.Closed, 9*time.Millisecond
		case -4:
			r.Outcome, r.RTT = probe.Unreachable, 0
		}
	}
	return rs
}

func TestMatrixSumsUpByGroups(t *testing.T) {
	b := meshOf(t)
	sequences := make(map[string]uint64)
	report := func(agent string, rs ...probe.Result) {
		sequences[agent]++
		b.history.Put(time.Now(), agent, apitest.Report(1, sequences[agent], rs))
	}
	report("fra-1", found("nyc-1", 5, 3, -1, 4)...)
	report("fra-2", append(found("nyc-1", 1, -2, -3, -4), found("fra-1", 2)...)...)
	report("nyc-1", found("fra-1", -1, -1)...)
	report("nyc-1", found("fra-2", -2)...)
	report("nyc-1", found("lost", 1)...)
	report("lost", found("fra-1", 1)...)
	report("fra-1", found("db.fra:5432", 1)...)
	report("fra-1", apitest.Results("measurements/other", "nyc-1", time.Now(), 1)...)
	b.history.Put(time.Now().Add(time.Nanosecond), "fra-1", apitest.Report(2, 1, nil))

	resp, err := b.client.Matrix(t.Context(), &synmeshv1.MatrixRequest{Source: mesh, GroupBy: "dc"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(resp.GetGroups(), []string{"fra", "nyc"}) {
		t.Errorf("got the groups %q", resp.GetGroups())
	}
	var got []string
	for _, c := range resp.GetCells() {
		got = append(got, fmt.Sprintf("%s to %s: %d sent, %d open, loss %.4f, %v %v %v %v", c.GetRow(), c.GetColumn(), c.GetSent(), c.GetOpen(), c.GetLoss(),
			c.GetMin().AsDuration(), c.GetP50().AsDuration().Round(100*time.Microsecond), c.GetP99().AsDuration(), c.GetMax().AsDuration()))
	}
	want := []string{
		"fra to fra: 1 sent, 1 open, loss 0.0000, 2ms 2ms 2ms 2ms",
		// 5 3 - 4 and 1 error closed(9) unreachable: of 7 that did not fail on our
		// side, 5 were answered: 1 3 4 5 9.
		"fra to nyc: 8 sent, 4 open, loss 0.2857, 1ms 4ms 9ms 9ms",
		"nyc to fra: 3 sent, 0 open, loss 1.0000, 0s 0s 0s 0s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestMatrixWhereAllFailedOnOurSideKnowsNoLoss(t *testing.T) {
	b := meshOf(t)
	b.history.Put(time.Now(), "fra-1", apitest.Report(1, 1, found("nyc-1", -2, -2)))
	resp, err := b.client.Matrix(t.Context(), &synmeshv1.MatrixRequest{Source: mesh, GroupBy: "dc"})
	if err != nil {
		t.Fatal(err)
	}
	if c := resp.GetCells(); len(c) != 1 || c[0].GetSent() != 2 || !math.IsNaN(c[0].GetLoss()) {
		t.Errorf("got %v, want a loss that is no number", c)
	}
}

func TestMatrixLooksBackAsFarAsItIsAsked(t *testing.T) {
	b := meshOf(t)
	for i, ago := range []time.Duration{2 * time.Hour, 10 * time.Minute, 2 * time.Minute} {
		b.history.Put(time.Now(), "fra-1", apitest.Report(1, uint64(i+1), apitest.Results(mesh, "nyc-1", time.Now().Add(-ago), 1)))
	}
	for window, want := range map[time.Duration]int64{0: 1, 10 * time.Second: 0, 15 * time.Minute: 2, 24 * time.Hour: 3} {
		req := &synmeshv1.MatrixRequest{Source: mesh, GroupBy: "dc"}
		if window > 0 {
			req.Window = durationpb.New(window)
		}
		resp, err := b.client.Matrix(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		var sent int64
		for _, c := range resp.GetCells() {
			sent += c.GetSent()
		}
		if sent != want {
			t.Errorf("in a window of %v there are %d results, want %d", window, sent, want)
		}
	}
}

func TestMatrixWithOtherColumns(t *testing.T) {
	b := meshOf(t)
	b.history.Put(time.Now(), "fra-1", apitest.Report(1, 1, append(found("nyc-1", 1), found("fra-2", 2)...)))
	b.history.Put(time.Now(), "lost", apitest.Report(1, 1, found("fra-1", 3)))
	for _, tt := range []struct{ rows, columns, groups, column, cells string }{
		{"dc", "name", "[fra nyc]", "[fra-1 fra-2 lost nyc-1]", "[fra>fra-2 fra>nyc-1]"},
		{"name", "dc", "[fra-1 fra-2 lost nyc-1]", "[fra nyc]", "[fra-1>fra fra-1>nyc lost>fra]"},
		{"name", "", "[fra-1 fra-2 lost nyc-1]", "[fra-1 fra-2 lost nyc-1]", "[fra-1>fra-2 fra-1>nyc-1 lost>fra-1]"},
	} {
		resp, err := b.client.Matrix(t.Context(), &synmeshv1.MatrixRequest{Source: mesh, GroupBy: tt.rows, ColumnsBy: tt.columns})
		if err != nil {
			t.Fatal(err)
		}
		var cells []string
		for _, c := range resp.GetCells() {
			cells = append(cells, c.GetRow()+">"+c.GetColumn())
		}
		if got := fmt.Sprint(resp.GetGroups(), resp.GetColumns(), cells); got != tt.groups+" "+tt.column+" "+tt.cells {
			t.Errorf("%s by %q: got %s", tt.rows, tt.columns, got)
		}
	}
	_, err := b.client.Matrix(t.Context(), &synmeshv1.MatrixRequest{Source: mesh, GroupBy: "dc", ColumnsBy: "rack"})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("got %v", err)
	}
}

func TestAMatrixThatIsTooLargeIsRefused(t *testing.T) {
	b := serve(t)
	const agents = 150
	var all []probe.Result
	name := func(i int) string { return fmt.Sprintf("%s-%d", strings.Repeat("x", 50), i) }
	for i := range agents {
		b.fleet.Connect(fleet.Agent{Name: name(i)}, &synmeshv1.SessionResponse{})
		all = append(all, apitest.Results(mesh, name(i), time.Now(), 1)...)
	}
	for i := range agents {
		b.history.Put(time.Now(), name(i), apitest.Report(1, 1, all))
	}
	_, err := b.client.Matrix(t.Context(), &synmeshv1.MatrixRequest{Source: mesh, GroupBy: "name"})
	if s := status.Convert(err); s.Code() != codes.ResourceExhausted || !strings.Contains(s.Message(), "group by a label of fewer values") {
		t.Errorf("got %v", err)
	}
}

func TestMatrixByALabelThatNobodyHasSaysWhereToLook(t *testing.T) {
	b := meshOf(t)
	_, err := b.client.Matrix(t.Context(), &synmeshv1.MatrixRequest{Source: mesh, GroupBy: "rack"})
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != `no agent has the label "rack"; see probectl get agents` {
		t.Errorf("got %v", err)
	}
}
