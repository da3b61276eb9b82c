package history

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"
)

// tier is what an archive file holds, and how finely.
type tier int

const (
	raw     tier = iota // every result
	minutes             // summaries of a minute each
	hours               // of an hour
)

var tierWords = [...]string{raw: "raw", minutes: "minutes", hours: "hours"}

// slot is what a summary of the tier is of.
func (t tier) slot() time.Duration {
	if t == hours {
		return time.Hour
	}
	return time.Minute
}

// parts names an archive file: what came out of the intake files first to last of a day.
type parts struct {
	tier        tier
	day         int64
	first, last int
}

func (p parts) String() string {
	return fmt.Sprintf("%s-%s-%d-%d%s", tierWords[p.tier], name{day: p.day}.date(), p.first, p.last, fileSuffix)
}

func (p parts) compare(o parts) int {
	return cmp.Or(cmp.Compare(p.tier, o.tier), cmp.Compare(p.day, o.day), cmp.Compare(p.first, o.first), cmp.Compare(o.last, p.last))
}

// covers tells whether all that is in o is in p, too.
func (p parts) covers(o parts) bool {
	return p.tier == o.tier && p.day == o.day && p.first <= o.first && p.last >= o.last
}

// intake returns the name of the intake file that the parts begin with.
func (p parts) intake() name { return name{p.day, p.first} }

func (p parts) end() uint64 { return name{day: p.day}.end() }

// parseParts accepts what String returns and nothing else.
func parseParts(s string) (p parts, ok bool) {
	for t, word := range tierWords {
		rest, found := strings.CutPrefix(s, word+"-")
		if !found {
			continue
		}
		date, _, _ := strings.Cut(rest, "-")
		if p.day, ok = parseDate(date); !ok {
			return parts{}, false
		}
		p.tier = tier(t)
		if _, err := fmt.Sscanf(rest, date+"-%d-%d", &p.first, &p.last); err != nil {
			return parts{}, false
		}
		return p, p.String() == s && p.first >= 1 && p.last >= p.first
	}
	return parts{}, false
}

// parseSetAside returns the day of a file of ours that was set aside.
func parseSetAside(s string) (day int64, ok bool) {
	if n, ok := parseDamagedName(s); ok {
		return n.day, true
	}
	s, damaged := strings.CutSuffix(s, damagedSuffix)
	before, _, _ := strings.Cut(s, fileSuffix)
	p, ok := parseParts(before + fileSuffix)
	return p.day, ok && damaged
}

// times is a stretch of time, in nanoseconds since 1970: from (inclusive) to to (exclusive).
type times struct{ from, to int64 }

// noTimes is empty.
var noTimes = times{math.MaxInt64, math.MinInt64}

func (t times) with(o times) times     { return times{min(t.from, o.from), max(t.to, o.to)} }
func (t times) overlaps(o times) bool  { return t.from < o.to && o.from < t.to }
func (t times) contains(at int64) bool { return t.from <= at && at < t.to }
