package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// filterFlags say of which series something is wanted.
type filterFlags struct {
	from string
	to   []string
	flow uint16
}

// filterHelp explains them, for the help of commands that have them.
const filterHelp = `Without a MEASUREMENT it is about all of them, and about all runs; runs/NAME is a run.
--from selects agents that measure. --to is a target as it was measured, or agents
that are measured: what has '=', '!' or a comma selects them by their labels.`

func (f *filterFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVar(&f.from, "from", "", "agents that measure, as KEY=VALUE or NAME, with commas for 'and' (all)")
	fs.StringArrayVar(&f.to, "to", nil, "a target such as db.fra:5432 or fra-1, or a selector of agents such as dc=fra; may be given several times (all)")
	fs.Uint16Var(&f.flow, "flow", 0, "the flow that was sent from this port (all)")
}

// filter checks the flags, and what was given as a measurement.
func (f *filterFlags) filter(args []string) (*synmeshv1.SeriesFilter, error) {
	m := &synmeshv1.SeriesFilter{Agents: f.from, LocalPort: uint32(f.flow)}
	if _, err := selector.Parse(f.from); err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	for _, to := range f.to {
		switch {
		case to == "":
			return nil, errors.New("--to is empty; name a target such as db.fra:5432, or agents such as dc=fra")
		case !strings.ContainsAny(to, "=!,( "):
			m.Targets = append(m.Targets, to)
		case m.TargetAgents != "":
			return nil, fmt.Errorf("--to selects agents twice, by %q and by %q; give one selector, with commas for 'and'", m.TargetAgents, to)
		default:
			if _, err := selector.Parse(to); err != nil {
				return nil, fmt.Errorf("--to: %w", err)
			}
			m.TargetAgents = to
		}
	}
	var err error
	if len(args) > 0 {
		m.Source, err = sourceOf(args[0])
	}
	return m, err
}

// sourceOf returns the source of results that a measurement's name, or runs/NAME, stands for.
func sourceOf(name string) (string, error) {
	folder, rest, ok := strings.Cut(name, "/")
	if !ok {
		folder, rest = "measurements", name
	}
	if folder != "measurements" && folder != "runs" {
		return "", fmt.Errorf("%q is no source of results; write the name of a measurement, or runs/NAME", name)
	}
	if err := selector.CheckName(rest); err != nil {
		return "", err
	}
	return folder + "/" + rest, nil
}

// perhapsOne takes one measurement or none.
func perhapsOne(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage(fmt.Errorf("one measurement is wanted, or none for all, as in %s; %d are given", c.UseLine(), len(args)))
	}
	return nil
}

// stretch is the flags --since and --until.
type stretch struct{ since, until moment }

func (s *stretch) add(c *cobra.Command) {
	c.Flags().Var(&s.since, "since", "the beginning: how long ago, such as 90m or 7d, or an instant such as 2026-11-20T19:00:00Z (1h)")
	c.Flags().Var(&s.until, "until", "the end, written as the beginning is (now)")
}

// times returns the two ends; nil if one was left to the controller.
func (s *stretch) times(now time.Time) (start, end *timestamppb.Timestamp, err error) {
	from, to := s.since.at(now, time.Hour), s.until.at(now, 0)
	if !from.Before(to) {
		return nil, nil, fmt.Errorf("--since %s is not before --until %s", from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	}
	if s.since.text != "" {
		start = timestamppb.New(from)
	}
	if s.until.text != "" {
		end = timestamppb.New(to)
	}
	return start, end, nil
}

// moment is a flag for an instant, or for how long ago it was.
type moment struct {
	text    string
	ago     time.Duration
	exact   bool // it is an instant
	instant time.Time
}

// String implements pflag.Value.
func (m *moment) String() string { return m.text }

// Type implements pflag.Value.
func (m *moment) Type() string { return "time" }

// Set implements pflag.Value.
func (m *moment) Set(text string) error {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		*m = moment{text: text, exact: true, instant: at}
		return nil
	}
	ago, err := parseAgo(text)
	if err != nil {
		return errors.New("write how long ago, such as 90m or 7d, or an instant such as 2026-11-20T19:00:00Z")
	}
	*m = moment{text: text, ago: ago}
	return nil
}

// at is the instant; usual says how long ago it is if none was given.
func (m *moment) at(now time.Time, usual time.Duration) time.Time {
	switch {
	case m.text == "":
		return now.Add(-usual)
	case m.exact:
		return m.instant
	}
	return now.Add(-m.ago)
}

// maxAgo is more than anything is kept for.
const maxAgo = 100 * 366 * 24 * time.Hour

// parseAgo reads a duration, also one in days.
func parseAgo(text string) (time.Duration, error) {
	if number, ok := strings.CutSuffix(text, "d"); ok {
		if days, err := strconv.ParseUint(number, 10, 15); err == nil {
			return time.Duration(days) * 24 * time.Hour, nil
		}
	}
	var s seconds
	if err := s.Set(text); err != nil {
		return 0, err
	}
	if d := time.Duration(s); d >= 0 && d <= maxAgo {
		return d, nil
	}
	return 0, errors.New("it is negative, or longer than a century")
}
