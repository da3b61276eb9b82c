package results

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/controller/history/rollup"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

const (
	usualSeries = 100
	// maxSums is about how many summaries are asked of the history at a time.
	maxSums = 10_000
)

// spot is where a page of Query begins: with a step of a series, or of its flow, or with the one that comes next. The
// times go from page to page: those of the first may have been a moment ago.
type spot struct {
	From   int64  `json:"f"`
	To     int64  `json:"t"`
	Source string `json:"s,omitempty"`
	Agent  string `json:"a,omitempty"`
	Target string `json:"x,omitempty"`
	Port   uint16 `json:"p,omitempty"`
	Step   int    `json:"n,omitempty"`
}

func (p spot) series() history.Series {
	return history.Series{Source: p.Source, Agent: p.Agent, Target: p.Target}
}

func (p spot) token() string {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // numbers and texts can be written
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func parseSpot(token string) (p spot, err error) {
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil || p.token() != token || p.From < 0 || p.To < p.From || p.Step < 0 {
		return spot{}, fault.Invalid("page token %q is none of ours; use next_page_token as it came", token)
	}
	return p, nil
}

func compareSeries(a, b history.Series) int {
	return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.Target, b.Target))
}

// question is a QueryRequest understood.
type question struct {
	history.Query
	wanted *selection
	began  time.Time // of the first step
	steps  int
	at     spot
	room   int // series, or flows
}

// Query implements synmeshv1.ResultServiceServer. First it finds out which series there are, and then
// asks for the few of them that a page has, so that it never holds more.
func (s *Service) Query(ctx context.Context, req *synmeshv1.QueryRequest) (*synmeshv1.QueryResponse, error) {
	q, err := s.newQuestion(req)
	if err != nil {
		return nil, err
	}
	if q.From.Equal(q.To) {
		return &synmeshv1.QueryResponse{}, nil
	}
	series, err := s.seriesOf(ctx, q)
	if err != nil {
		return nil, failed(ctx, err)
	}
	first, _ := slices.BinarySearchFunc(series, q.at.series(), compareSeries)
	page := &queryPage{question: q, quantiles: req.GetQuantiles()}
	for series = series[first:]; len(series) > 0; {
		some := series[:min(len(series), q.room+1, max(1, maxSums/q.steps))]
		series = series[len(some):]
		whole, err := s.fill(ctx, page, some)
		if err != nil {
			return nil, failed(ctx, err)
		}
		if !whole {
			break
		}
	}
	return &page.QueryResponse, nil
}

func (s *Service) newQuestion(req *synmeshv1.QueryRequest) (q *question, err error) {
	q = &question{room: int(cmp.Or(req.GetPageSize(), usualSeries))}
	if q.wanted, err = s.newSelection(req.GetFilter()); err != nil {
		return nil, err
	}
	from, to, err := span(req.GetStartTime(), req.GetEndTime(), time.Now())
	q.at = spot{From: nanoseconds(from), To: nanoseconds(to)}
	if req.GetPageToken() != "" {
		q.at, err = parseSpot(req.GetPageToken())
	}
	if err != nil {
		return nil, err
	}
	q.Query = history.Query{Source: q.wanted.source, From: time.Unix(0, q.at.From), To: time.Unix(0, q.at.To), Step: req.GetStep().AsDuration(),
		Flows: req.GetByFlow() || q.wanted.port != 0, LocalPort: q.wanted.port}
	q.began, q.steps = q.From, 1
	if q.Step%time.Minute == 0 && !q.Flows {
		q.began = q.From.Truncate(time.Minute)
	}
	if q.Step > 0 {
		q.steps = int(min(q.To.Sub(q.began)/q.Step+2, math.MaxInt32))
	}
	return q, nil
}

// seriesOf returns the series that may have results, in order. It decodes nothing: the history
// asks whether a series is wanted, and is told no.
func (s *Service) seriesOf(ctx context.Context, q *question) (list []history.Series, err error) {
	end, err := s.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	var mu sync.Mutex
	found := make(map[history.Series]struct{})
	_, err = s.history.Query(ctx, history.Query{Source: q.Source, From: q.From, To: q.To, WantsAgent: q.wanted.wantsAgent, Group: func(id history.Series) (history.Series, bool) {
		if q.wanted.wantsSeries(id) {
			mu.Lock()
			defer mu.Unlock()
			found[id] = struct{}{}
		}
		return id, false
	}})
	for id := range found {
		list = append(list, id)
	}
	slices.SortFunc(list, compareSeries)
	return list, err
}

// turn waits until it is the caller's turn to ask the history, and returns what ends that: when the
// answers, which are large, have been made use of.
func (s *Service) turn(ctx context.Context) (end func(), err error) {
	select {
	case s.asking <- struct{}{}:
		return func() { <-s.asking }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fill adds what there is of some series to a page, as far as it belongs to that.
func (s *Service) fill(ctx context.Context, page *queryPage, series []history.Series) (whole bool, err error) {
	end, err := s.turn(ctx)
	if err != nil {
		return false, err
	}
	defer end()
	answers, err := s.answers(ctx, page.question, series)
	if err != nil {
		return false, err
	}
	for _, a := range answers {
		if !page.add(a) {
			return false, nil
		}
	}
	return true, nil
}

// answers returns those of some series, in order.
func (s *Service) answers(ctx context.Context, q *question, series []history.Series) ([]history.Answer, error) {
	some := make(map[history.Series]bool, len(series))
	agents, targets := make(map[string]bool), make(map[string]bool)
	part := q.Query
	for _, id := range series {
		some[id] = true
		if !agents[id.Agent] {
			agents[id.Agent], part.Agents = true, append(part.Agents, id.Agent)
		}
		if !targets[id.Target] {
			targets[id.Target], part.Targets = true, append(part.Targets, id.Target)
		}
	}
	part.Group = func(id history.Series) (history.Series, bool) { return id, some[id] }
	answers, err := s.history.Query(ctx, part)
	slices.SortFunc(answers, func(a, b history.Answer) int {
		return cmp.Or(compareSeries(a.Series, b.Series), cmp.Compare(a.LocalPort, b.LocalPort))
	})
	return answers, err
}

// queryPage is a response being filled.
type queryPage struct {
	*question
	synmeshv1.QueryResponse
	quantiles []float64
	bytes     int
}

// add adds an answer, as far as it belongs to the page; full tells that it did not in whole.
func (p *queryPage) add(a history.Answer) (whole bool) {
	first := 0
	switch cmp.Or(compareSeries(a.Series, p.at.series()), cmp.Compare(a.LocalPort, p.at.Port)) {
	case -1:
		return true // it was on the page before
	case 0:
		first = p.at.Step
	}
	next := spot{p.at.From, p.at.To, a.Source, a.Agent, a.Target, a.LocalPort, first}
	m := &synmeshv1.SeriesSummary{Source: a.Source, Agent: a.Agent, Target: a.Target, LocalPort: uint32(a.LocalPort)}
	p.bytes += proto.Size(m) + 8
	for i, sum := range a.Steps {
		if i < first || sum == nil {
			continue
		}
		step := stepSummary(p.began.Add(time.Duration(i)*p.Step), sum, p.quantiles)
		p.bytes += proto.Size(step) + 4
		if len(p.Series) == p.room || p.bytes > maxPage {
			next.Step = i
			p.NextPageToken = next.token()
			break
		}
		m.Steps = append(m.Steps, step)
	}
	if len(m.Steps) > 0 {
		p.Series = append(p.Series, m)
	}
	return p.NextPageToken == ""
}

func stepSummary(at time.Time, s *rollup.Summary, quantiles []float64) *synmeshv1.StepSummary {
	m := &synmeshv1.StepSummary{
		StartTime: timestamppb.New(at), Sent: int64(s.Sent()), Open: int64(s.Counts[probe.Open]), Closed: int64(s.Counts[probe.Closed]),
		Unreachable: int64(s.Counts[probe.Unreachable]), Timeout: int64(s.Counts[probe.Timeout]), Error: int64(s.Counts[probe.Error]), Timed: int64(s.Timed),
	}
	if loss := s.Loss(); !math.IsNaN(loss) {
		m.Loss = &loss
	}
	if s.Timed == 0 {
		return m
	}
	m.Min, m.Mean, m.Max = durationpb.New(s.Min), durationpb.New(s.Sum/time.Duration(s.Timed)), durationpb.New(s.Max)
	m.DelayVariation = durationpb.New(s.Quantile(0.99) - s.Min)
	for _, q := range quantiles {
		m.Quantiles = append(m.Quantiles, durationpb.New(s.Quantile(q)))
	}
	return m
}
