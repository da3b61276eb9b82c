package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func (a *app) getCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "get agents|members|measurements|results|tokens|users|audit", Short: "List what there is",
		Args: a.noCommand,
		RunE: func(*cobra.Command, []string) error {
			return usage(errors.New("get what? write probectl get agents, probectl get measurements, probectl get results, or another of probectl get --help"))
		},
	}
	c.AddCommand(a.getAgentsCommand(), a.getMeasurementsCommand(), a.getResultsCommand(),
		a.getMembersCommand(), a.getTokensCommand("tokens"), a.getUsersCommand("users"), a.getAuditCommand())
	return c
}

func (a *app) getAgentsCommand() *cobra.Command {
	var match string
	c := &cobra.Command{
		Use: "agents", Aliases: []string{"agent"}, Short: "List the agents of the fleet", Args: a.noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if _, err := selector.Parse(match); err != nil {
				return usage(err)
			}
			agents, err := a.agents(c.Context(), match)
			if err != nil {
				return err
			}
			return a.printAgents(agents)
		},
	}
	c.Flags().StringVarP(&match, "selector", "l", "", "agents to list, as KEY=VALUE or NAME, with commas for 'and' (all)")
	a.outputFlag(c)
	return c
}

func (a *app) noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(fmt.Errorf("%q is not expected; see %s --help", args[0], c.CommandPath()))
	}
	return nil
}

func (a *app) agents(ctx context.Context, match string) ([]*synmeshv1.Agent, error) {
	conn, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var agents []*synmeshv1.Agent
	request := &synmeshv1.ListAgentsRequest{Selector: match}
	for {
		page, err := synmeshv1.NewFleetServiceClient(conn).ListAgents(ctx, request)
		if err != nil {
			return nil, a.failed(ctx, err)
		}
		agents = append(agents, page.GetAgents()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return agents, nil
		}
	}
}

// agentView is an agent as programs read it.
type agentView struct {
	Name      string            `json:"name"`
	State     string            `json:"state"`
	Labels    map[string]string `json:"labels"`
	Responder string            `json:"responder,omitempty"`
	Version   string            `json:"version,omitempty"`
	Stamping  string            `json:"stamping,omitempty"`
	Connect   *time.Time        `json:"connect_time,omitempty"`
	LastSeen  *time.Time        `json:"last_seen_time,omitempty"`
	Backlog   uint64            `json:"backlog"`
	Produced  uint64            `json:"produced"`
	Dropped   uint64            `json:"dropped"`
	Drops     map[string]uint64 `json:"dropped_by_reason,omitempty"`
	// Seconds by which the agent's clock is ahead of the controller's, and how far that may be off.
	ClockOffset *float64          `json:"clock_offset_seconds,omitempty"`
	ClockError  *float64          `json:"clock_error_seconds,omitempty"`
	Refused     map[string]string `json:"refused,omitempty"` // source of a measurement -> why the agent does not do it
}

func viewOf(m *synmeshv1.Agent) agentView {
	v := agentView{
		Name: m.GetName(), State: strings.ToLower(strings.TrimPrefix(m.GetState().String(), "AGENT_STATE_")),
		Labels: m.GetLabels(), Responder: m.GetResponder(), Version: m.GetVersion(), Stamping: m.GetStamping(),
		Backlog: m.GetBacklog(), Produced: m.GetProduced(), Dropped: m.GetDropped(),
	}
	for _, d := range m.GetDrops() {
		if v.Drops == nil {
			v.Drops = make(map[string]uint64)
		}
		v.Drops[strings.ToLower(strings.TrimPrefix(d.GetReason().String(), "DROP_REASON_"))] += d.GetResults()
	}
	if m.GetClockOffset() != nil {
		offset, within := m.GetClockOffset().AsDuration().Seconds(), m.GetClockError().AsDuration().Seconds()
		v.ClockOffset, v.ClockError = &offset, &within
	}
	for _, r := range m.GetRefused() {
		if v.Refused == nil {
			v.Refused = make(map[string]string)
		}
		v.Refused[r.GetSource()] = r.GetReason()
	}
	v.Connect, v.LastSeen = instant(m.GetConnectTime()), instant(m.GetLastSeenTime())
	return v
}

func (a *app) printAgents(agents []*synmeshv1.Agent) error {
	views := make([]agentView, len(agents))
	for i, m := range agents {
		views[i] = viewOf(m)
	}
	switch a.output {
	case asJSON, asYAML:
		return printValue(a.out, a.output, views)
	case asJSONL:
		return printLines(a.out, views)
	case asName:
		for _, v := range views {
			fmt.Fprintln(a.out, v.Name)
		}
		return nil
	}
	t := &table{left: 4, header: []string{"NAME", "STATE", "LABELS", "RESPONDER", "LAST SEEN"}, alarm: make(map[int]bool)}
	if a.output != asTable {
		t.header = append(t.header, "CONNECTED", "STAMPING", "BACKLOG", "DROPPED", "CLOCK", "REFUSED", "VERSION")
	}
	for i, v := range views {
		row := []string{v.Name, v.State, labels(v.Labels), v.Responder, ago(v.LastSeen)}
		if a.output != asTable {
			row = append(row, ago(v.Connect), v.Stamping, fmt.Sprint(v.Backlog), v.dropped(), v.clock(), fmt.Sprint(len(v.Refused)), v.Version)
		}
		t.rows = append(t.rows, row)
		t.alarm[i] = v.State == "disconnected"
	}
	if a.output == asCSV {
		return printCSV(a.out, t)
	}
	if len(views) == 0 {
		fmt.Fprintln(a.err, "no agents")
		return nil
	}
	return print(a.out, t)
}

// dropped shows how many results were dropped, and why.
func (v *agentView) dropped() string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(v.Drops)) {
		parts = append(parts, fmt.Sprintf("%s %d", reason, v.Drops[reason]))
	}
	if len(parts) == 0 {
		return fmt.Sprint(v.Dropped)
	}
	return fmt.Sprintf("%d (%s)", v.Dropped, strings.Join(parts, ", "))
}

// clock shows by how much the agent's clock is ahead.
func (v *agentView) clock() string {
	if v.ClockOffset == nil {
		return "-"
	}
	return fmt.Sprintf("%+.1fms +-%.1fms", *v.ClockOffset*1e3, *v.ClockError*1e3)
}

func labels(m map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+"="+m[k])
	}
	return strings.Join(parts, ",")
}

// ago shows how long ago an instant was, as kubectl does.
func ago(t *time.Time) string {
	if t == nil {
		return "-"
	}
	switch d := max(0, time.Since(*t)); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

func (a *app) getResultsCommand() *cobra.Command {
	request := &synmeshv1.ListResultsRequest{}
	since := seconds(time.Hour)
	c := &cobra.Command{
		Use: "results", Aliases: []string{"result"}, Short: "List single results, oldest first", Args: a.noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			request.StartTime = timestamppb.New(time.Now().Add(-time.Duration(since)))
			return a.results(c.Context(), request)
		},
	}
	f := c.Flags()
	f.StringVar(&request.Source, "source", "", "runs/NAME or measurements/NAME (all)")
	f.StringVar(&request.Agent, "agent", "", "name of the agent that probed (all)")
	f.StringVar(&request.Target, "target", "", "name of the target (all)")
	f.Var(&since, "since", "how long ago the oldest may have been stored")
	a.outputFlag(c)
	return c
}

func (a *app) results(ctx context.Context, request *synmeshv1.ListResultsRequest) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	var all []probe.Result
	w := newResultWriter(a.out, a.output)
	for {
		page, err := synmeshv1.NewResultServiceClient(conn).ListResults(ctx, request)
		if err != nil {
			return a.failed(ctx, err)
		}
		for _, m := range page.GetResults() {
			r, err := convert.ToResult(m)
			if err != nil {
				return err
			}
			switch a.output {
			case asJSONL, asCSV:
				if err := w.write(&r); err != nil {
					return err
				}
			default:
				all = append(all, r)
			}
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return a.printResults(all)
		}
	}
}

func (a *app) printResults(all []probe.Result) error {
	switch a.output {
	case asJSON, asYAML:
		if all == nil {
			all = []probe.Result{}
		}
		return printValue(a.out, a.output, all)
	case asName:
		return usage(errors.New("results have no names; choose another form of output"))
	case asTable, asWide:
		return print(a.out, resultTable(all, a.output == asWide))
	}
	return nil // written one by one
}

func resultTable(all []probe.Result, wide bool) *table {
	t := &table{left: 5, header: []string{"TIME", "AGENT", "SOURCE", "TARGET", "OUTCOME", "RTT"}, alarm: make(map[int]bool)}
	if wide {
		t.header = append(t.header, "REMOTE", "PORT", "STAMP", "LATENESS", "HOST DELAY", "ERROR")
	}
	for i := range all {
		r := &all[i]
		row := []string{r.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), r.Agent, r.Source, r.Target, r.Outcome.String(), "-"}
		if r.Timed() {
			row[5] = milliseconds(r.RTT)
		}
		if wide {
			row = append(row, r.Remote.String(), fmt.Sprint(r.LocalPort), r.Stamp.String(),
				milliseconds(r.Lateness), milliseconds(r.HostDelay), r.Err)
		}
		t.rows = append(t.rows, row)
		t.alarm[i] = !r.Outcome.Answered()
	}
	return t
}
