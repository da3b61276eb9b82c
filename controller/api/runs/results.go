package runs

import (
	"github.com/synmesh/synmesh/controller/feed"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// maxResults are in one message, which stays far below its bound.
const maxResults = 1000

// maxShown is how many previews of an agent are shown that are not stored yet. It makes them
// in a minute, while nothing is stored at all.
const maxShown = 1 << 13

// pending returns an event and those that wait behind it.
func pending(e feed.Event, sub *feed.Subscription) []feed.Event {
	all := []feed.Event{e}
	for range len(sub.Events()) {
		all = append(all, <-sub.Events())
	}
	return all
}

// events passes on what has come, as few messages as may be.
func (r *run) events(all []feed.Event) error {
	var batch []*synmeshv1.Result
	for _, e := range all {
		p := r.waiting[e.Agent]
		if p == nil || (e.Report == nil || e.Preview) && e.Session != p.session.ID { // that is an older session's
			continue
		}
		ours := r.ours(e.Report)
		if !e.Preview {
			p.stored += results(ours)
		}
		if !p.show(e) {
			ours = nil
		}
		for row := range convert.Rows(e.Agent, ours) {
			if batch = append(batch, convert.FromResult(row)); len(batch) == maxResults {
				if err := r.send(batch); err != nil {
					return err
				}
				batch = nil
			}
		}
		missing, why, ended := r.ended(e, p)
		if !ended {
			continue
		}
		if err := r.send(batch); err != nil {
			return err
		}
		batch = nil
		if err := r.end(e.Agent, missing, why); err != nil {
			return err
		}
	}
	return r.send(batch)
}

// show tells whether the results of an event have not been shown yet, and takes in that they
// are. Those of a preview are not shown again when they are stored.
func (p *part) show(e feed.Event) bool {
	number := e.Report.GetPreview()
	shown := p.shown[number]
	if !e.Preview {
		delete(p.shown, number)
		return !shown
	}
	if shown || len(p.shown) == maxShown {
		return false
	}
	if p.shown == nil {
		p.shown = make(map[uint64]bool)
	}
	p.shown[number] = true
	return true
}

// ended tells whether an event ends an agent's part, and how.
func (r *run) ended(e feed.Event, p *part) (missing uint64, why string, ended bool) {
	if e.Report == nil {
		return 0, "it was lost: its session ended in the middle of the run", true
	}
	for _, end := range e.Report.GetRunEnds() {
		if end.GetRun() == r.name {
			return end.GetProduced() - min(p.stored, end.GetProduced()), end.GetError(), true
		}
	}
	return 0, "", false
}

// results counts the results of a report.
func results(m *synmeshv1.Report) (n uint64) {
	for _, b := range m.GetBlocks() {
		n += uint64(len(b.GetOutcomes()))
	}
	return n
}

// ours is what a report has of this run.
func (r *run) ours(m *synmeshv1.Report) *synmeshv1.Report {
	ours := &synmeshv1.Report{}
	for _, b := range m.GetBlocks() {
		if b.GetSource() == r.name {
			ours.Blocks = append(ours.Blocks, b)
		}
	}
	return ours
}

func (r *run) send(batch []*synmeshv1.Result) error {
	if len(batch) == 0 {
		return nil
	}
	return r.stream.Send(&synmeshv1.RunResponse{Message: &synmeshv1.RunResponse_Results{
		Results: &synmeshv1.RunResults{Results: batch}}})
}
