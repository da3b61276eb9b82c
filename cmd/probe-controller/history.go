package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/synmesh/synmesh/controller/history"
)

// historyFlags are about how much is kept.
func historyFlags(f *pflag.FlagSet, cfg *history.Config) {
	f.Var((*age)(&cfg.Retention), "retention", "how long every single result is kept, such as 7d or 36h (7d)")
	f.Var((*age)(&cfg.MinuteRetention), "retention-minutes", "how long what sums them up by the minute is kept (90d)")
	f.Var((*age)(&cfg.HourRetention), "retention-hours", "how long what sums them up by the hour is kept (730d)")
	f.Var((*size)(&cfg.MaxSize), "max-size", "how large the history may become, such as 50GiB; then agents keep their results until there is room (no limit)")
}

// age is a duration that may be in days.
type age time.Duration

const day = 24 * time.Hour

// String implements pflag.Value; what is usual stands in the flag's help.
func (a *age) String() string {
	if *a == 0 {
		return ""
	}
	return time.Duration(*a).String()
}

// Type implements pflag.Value.
func (a *age) Type() string { return "time" }

// Set implements pflag.Value.
func (a *age) Set(text string) error {
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n uint64
		if n, err = strconv.ParseUint(days, 10, 64); n > uint64(math.MaxInt64/day) {
			return errors.New("that is too long")
		}
		d = time.Duration(n) * day
	}
	if err != nil {
		return errors.New("it is no time such as 90d or 36h")
	}
	if d <= 0 {
		return errors.New("it has to be longer than nothing")
	}
	*a = age(d)
	return nil
}

// size is a number of bytes.
type size int64

// units end with B, which comes last.
var units = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// minSize is less than what any history needs to do anything at all.
const minSize = 64 << 20

// String implements pflag.Value.
func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*s), 10)
}

// Type implements pflag.Value.
func (s *size) Type() string { return "size" }

// Set implements pflag.Value.
func (s *size) Set(text string) error {
	number, unit := text, int64(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(text, u.name); ok {
			number, unit = strings.TrimSpace(n), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	switch {
	case err != nil || n < 0:
		return errors.New("it is no size such as 500MB or 50GiB")
	case n > math.MaxInt64/unit:
		return errors.New("that is more than there can be")
	case n*unit < minSize:
		return fmt.Errorf("%d bytes are too few; %d MiB are the least", n*unit, minSize>>20)
	}
	*s = size(n * unit)
	return nil
}
