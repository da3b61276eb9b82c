package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/internal/measurement"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func (a *app) describeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "describe agent|measurement NAME", Short: "Show all that is known of an agent or a measurement",
		Args: a.noCommand,
		RunE: func(*cobra.Command, []string) error {
			return usage(errors.New("describe what? write probectl describe agent NAME, or probectl describe measurement NAME"))
		},
	}
	c.AddCommand(a.describeAgentCommand(), a.describeMeasurementCommand())
	return c
}

// oneName says what to describe.
func oneName(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usage(fmt.Errorf("one name is wanted; %d are given", len(args)))
	}
	if err := selector.CheckName(args[0]); err != nil {
		return usage(err)
	}
	return nil
}

func (a *app) describeMeasurementCommand() *cobra.Command {
	return &cobra.Command{
		Use: "measurement NAME", Aliases: []string{"measurements"}, Short: "Show a measurement and how it is carried out", Args: oneName,
		RunE: func(c *cobra.Command, args []string) error {
			conn, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			m, err := synmeshv1.NewMeasurementServiceClient(conn).GetMeasurement(c.Context(), &synmeshv1.GetMeasurementRequest{Name: args[0]})
			if err != nil {
				return a.failed(c.Context(), err)
			}
			return a.describeMeasurement(m.GetMeasurement())
		},
	}
}

func (a *app) describeMeasurement(m *synmeshv1.StoredMeasurement) error {
	v, spec, err := viewOfMeasurement(m)
	if err != nil {
		return err
	}
	var f facts
	f.add("Name", v.Name)
	if v.Origin == "file" {
		f.add("Origin", "the file that the controller was started with")
	} else {
		f.add("Origin", "stored by probectl apply")
	}
	f.add("Sources", cmp.Or(v.Sources, "all agents"))
	f.add("Targets", v.Destination)
	f.add("Interval", timing(spec.Interval, spec.Jitter, spec.Poisson))
	f.add("Timeout", spec.Timeout.String())
	f.add("Flows", fmt.Sprint(v.Flows))
	f.add("Mode", v.Mode)
	f.add("Retries", fmt.Sprint(spec.Retries))
	f.add("Budget", number(v.Budget)+" probes a second and agent")
	f.add("Expires", cmp.Or(v.expires(), "never"))
	f.add("State", v.State)
	f.add("Agents", fmt.Sprint(v.Agents))
	f.add("Pairs", pairsOf(v))
	f.add("Probes", fmt.Sprintf("%s a second; at most %s by one agent, and %s to one target", number(v.Rate), number(v.MaxAgentRate), number(v.MaxTargetRate)))
	for _, r := range m.GetStatus().GetRefusals() {
		f.add("Refused", r.GetAgent()+": "+r.GetReason())
	}
	if more := int(m.GetStatus().GetRefusingAgents()) - len(m.GetStatus().GetRefusals()); more > 0 {
		f.add("Refused", fmt.Sprintf("by %d more agents", more))
	}
	return print(a.out, f)
}

func timing(interval time.Duration, jitter float64, poisson bool) string {
	switch {
	case poisson:
		return interval.String() + " on average (Poisson)"
	case jitter > 0:
		return fmt.Sprintf("%v, and up to %s late at random", interval, percent(jitter))
	}
	return interval.String()
}

func (a *app) describeAgentCommand() *cobra.Command {
	return &cobra.Command{
		Use: "agent NAME", Aliases: []string{"agents"}, Short: "Show an agent and what it measures by itself", Args: oneName,
		RunE: func(c *cobra.Command, args []string) error {
			agent, table, err := a.agentAndTimetable(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.describeAgent(agent, table)
		},
	}
}

func (a *app) agentAndTimetable(ctx context.Context, name string) (*synmeshv1.Agent, *synmeshv1.Timetable, error) {
	conn, err := a.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	found, err := synmeshv1.NewFleetServiceClient(conn).ListAgents(ctx, &synmeshv1.ListAgentsRequest{Selector: selector.NameKey + "=" + name})
	if err != nil {
		return nil, nil, a.failed(ctx, err)
	}
	if len(found.GetAgents()) == 0 {
		return nil, nil, usage(fmt.Errorf("agent %q: no such agent; see probectl get agents", name))
	}
	table, err := synmeshv1.NewMeasurementServiceClient(conn).GetTimetable(ctx, &synmeshv1.GetTimetableRequest{Agent: name})
	if err != nil {
		return nil, nil, a.failed(ctx, err)
	}
	return found.GetAgents()[0], table.GetTimetable(), nil
}

func (a *app) describeAgent(m *synmeshv1.Agent, timetable *synmeshv1.Timetable) error {
	v := viewOf(m)
	var f facts
	f.add("Name", v.Name)
	f.add("State", v.State)
	f.add("Labels", labels(v.Labels))
	f.add("Responder", v.Responder)
	f.add("Version", v.Version)
	f.add("Stamping", v.Stamping)
	f.add("Connected", ago(v.Connect))
	f.add("Last seen", ago(v.LastSeen))
	f.add("Backlog", fmt.Sprint(v.Backlog))
	f.add("Dropped", fmt.Sprint(v.Dropped))
	refused := make(map[string]string)
	for _, r := range m.GetRefused() {
		refused[r.GetSource()] = r.GetReason()
	}
	t := &table{left: 1, header: []string{"MEASUREMENT", "TARGETS", "INTERVAL", "FLOWS", "PROBES/S"}, alarm: make(map[int]bool)}
	total := 0.0
	for i, e := range timetable.GetEntries() {
		name := strings.TrimPrefix(e.GetSource(), measurement.Prefix)
		spec, err := convert.ToSpec(e.GetSpec())
		if err != nil {
			return fmt.Errorf("measurement %q: %w", name, err)
		}
		rate := float64(len(spec.Targets)) * spec.Rate()
		total += rate
		t.rows = append(t.rows, []string{name, fmt.Sprint(len(spec.Targets)), spec.Interval.String(), fmt.Sprint(spec.Flows), number(rate)})
		if why, is := refused[e.GetSource()]; is {
			t.alarm[i] = true
			f.add("Refused", name+": "+why)
		}
	}
	f.add("Probes", number(total)+" a second")
	if err := print(a.out, f); err != nil || len(t.rows) == 0 {
		return err
	}
	fmt.Fprintln(a.out)
	return print(a.out, t)
}

// facts are lines of a name and what is to be said of it.
type facts [][2]string

func (f *facts) add(name, text string) {
	*f = append(*f, [2]string{name, cmp.Or(text, "-")})
}

// String lays the facts out below each other.
func (f facts) String() string {
	width := 0
	for _, fact := range f {
		width = max(width, len(fact[0]))
	}
	var b strings.Builder
	for _, fact := range f {
		fmt.Fprintf(&b, "%-*s   %s\n", width+1, fact[0]+":", fact[1])
	}
	return b.String()
}
