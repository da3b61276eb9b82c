package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// threshold is one condition of --fail-if.
type threshold struct {
	text  string
	value func(*probe.Summary) float64 // seconds, or a fraction
	above bool
	equal bool
	limit float64
}

var quantiles = map[string]float64{"min": 0, "p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "max": 1}

const thresholdForm = "write conditions such as p99>5ms or loss>1%, with min, p50, p90, p95, p99, p99.9, max, jitter or loss"

// parseThresholds reads conditions with commas between them.
func parseThresholds(text string) ([]threshold, error) {
	if text == "" {
		return nil, nil
	}
	var ts []threshold
	for part := range strings.SplitSeq(text, ",") {
		t, err := parseThreshold(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("--fail-if %q: %w; %s", part, err, thresholdForm)
		}
		ts = append(ts, t)
	}
	return ts, nil
}

func parseThreshold(text string) (threshold, error) {
	t := threshold{text: text}
	at := strings.IndexAny(text, "<>")
	if at < 0 {
		return t, fmt.Errorf("there is no < or >")
	}
	name := strings.TrimSpace(text[:at])
	t.above = text[at] == '>'
	value, equal := strings.CutPrefix(text[at+1:], "=")
	value, t.equal = strings.TrimSpace(value), equal
	switch q, ok := quantiles[name]; {
	case name == "loss":
		t.value = (*probe.Summary).Loss
		number, isPercent := strings.CutSuffix(value, "%")
		f, err := strconv.ParseFloat(number, 64)
		if err != nil || !(f >= 0) || math.IsInf(f, 1) { // nothing is above or below NaN
			return t, fmt.Errorf("%q is not a percentage", value)
		}
		if t.limit = f; isPercent {
			t.limit = f / 100
		}
		return t, nil
	case name == "jitter":
		t.value = func(s *probe.Summary) float64 { return s.Jitter().Seconds() }
	case ok:
		t.value = func(s *probe.Summary) float64 {
			if s.Timed() == 0 {
				return math.NaN()
			}
			return s.Quantile(q).Seconds()
		}
	default:
		return t, fmt.Errorf("%q is unknown", name)
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return t, fmt.Errorf("%q is not a duration", value)
	}
	t.limit = d.Seconds()
	return t, nil
}

// broken tells whether the condition holds. What was not measured breaks nothing.
func (t *threshold) broken(s *probe.Summary) bool {
	v := t.value(s)
	switch {
	case t.equal && v == t.limit:
		return true
	case t.above:
		return v > t.limit
	}
	return v < t.limit
}
