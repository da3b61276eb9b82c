package metrics

import (
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// state is what the controller knows without this package; it is asked at each scrape.
type state struct{ cfg Config }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("synmesh_"+name, help, labels, nil)
}

var (
	buildInfo      = desc("build_info", "What runs; always 1.", "version", "go_version")
	agents         = desc("agents", "Agents by how they are known.", "state")
	backlog        = desc("agents_backlog_results", "Results that the connected agents had not had acknowledged at their last heartbeats.")
	dropped        = desc("agents_dropped_results", "Results that the agents known had dropped in the lives of their spools, at their last heartbeats.", "reason")
	refused        = desc("agents_refused_entries", "Entries of timetables that the connected agents did not do, at their last heartbeats.")
	callsEnded     = desc("calls_total", "Calls of the API that have ended, by method and code of gRPC.", "method", "code")
	feedOverflows  = desc("feed_overflows_total", "Runs that were ended because their readers were too slow.")
	reportsStored  = desc("history_reports_total", "Reports stored.")
	resultsStored  = desc("history_results_total", "Results stored.")
	duplicates     = desc("history_duplicate_reports_total", "Reports that came again, and were not stored again.")
	commits        = desc("history_commits_total", "Commits to the history, by how they ended.", "outcome")
	corruptRecords = desc("history_corrupt_records_total", "Stored records found damaged.")
	damagedFiles   = desc("history_damaged_files_total", "Files of the history that could not be read, wholly or in part.")
	historyBytes   = desc("history_bytes", "Bytes of the history's files.", "tier")
	archiveLag     = desc("history_archive_lag_seconds", "For how long the oldest complete file of the intake has waited to be archived.")
)

// Describe implements prometheus.Collector.
func (s *state) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildInfo, agents, backlog, dropped, refused, callsEnded, feedOverflows, reportsStored, resultsStored,
		duplicates, commits, corruptRecords, damagedFiles, historyBytes, archiveLag} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (s *state) Collect(to chan<- prometheus.Metric) {
	set := func(kind prometheus.ValueType, d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		set(prometheus.CounterValue, d, float64(v), labels...)
	}
	set(prometheus.GaugeValue, buildInfo, 1, s.cfg.Version, runtime.Version())
	s.fleet(func(d *prometheus.Desc, v float64, labels ...string) { set(prometheus.GaugeValue, d, v, labels...) })
	for call, n := range s.cfg.Calls() {
		count(callsEnded, n, call.Method, call.Code.String())
	}
	count(feedOverflows, s.cfg.Overflows())
	h := s.cfg.History.Stats()
	count(reportsStored, h.Reports)
	count(resultsStored, h.Results)
	count(duplicates, h.Duplicates)
	count(commits, h.Commits, "stored")
	count(commits, h.FailedCommits, "failed")
	count(corruptRecords, h.CorruptRecords)
	count(damagedFiles, h.DamagedFiles)
	if s.cfg.Usage == nil {
		return
	}
	u, err := s.cfg.Usage()
	if err != nil {
		to <- prometheus.NewInvalidMetric(historyBytes, err)
		return
	}
	for tier, n := range u.Bytes {
		set(prometheus.GaugeValue, historyBytes, float64(n), tier)
	}
	set(prometheus.GaugeValue, archiveLag, u.Waiting.Seconds())
}

func (s *state) fleet(set func(d *prometheus.Desc, v float64, labels ...string)) {
	var known [fleet.Gossiped + 1]int
	var waiting, undone uint64
	drops := make(map[string]uint64, len(reasons))
	for _, a := range s.cfg.Fleet.Agents(selector.Selector{}) {
		known[a.State]++
		if a.State == fleet.Connected {
			waiting += a.Backlog
			undone += uint64(len(a.Refused))
		}
		for _, d := range a.Drops {
			drops[reasonOf(d.GetReason())] += d.GetResults()
		}
	}
	set(agents, float64(known[fleet.Connected]), "connected")
	set(agents, float64(known[fleet.Disconnected]), "disconnected")
	set(agents, float64(known[fleet.Gossiped]), "gossiped")
	set(backlog, float64(waiting))
	for _, r := range reasons {
		set(dropped, float64(drops[r]), r)
	}
	set(refused, float64(undone))
}

// reasons are why agents drop results, and "other", which stands for what newer agents say.
var reasons = func() []string {
	all := []string{"other"}
	for n := range synmeshv1.DropReason_name {
		if r := synmeshv1.DropReason(n); r != synmeshv1.DropReason_DROP_REASON_UNSPECIFIED {
			all = append(all, reasonOf(r))
		}
	}
	return all
}()

func reasonOf(r synmeshv1.DropReason) string {
	if _, known := synmeshv1.DropReason_name[int32(r)]; !known || r == synmeshv1.DropReason_DROP_REASON_UNSPECIFIED {
		return "other"
	}
	return strings.ToLower(strings.TrimPrefix(r.String(), "DROP_REASON_"))
}
