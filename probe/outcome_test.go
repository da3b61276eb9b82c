package probe

import (
	"encoding"
	"fmt"
	"slices"
	"testing"
)

func TestEveryWordIsReadBack(t *testing.T) {
	var got []string
	for _, o := range Outcomes() {
		got = append(got, o.String())
		text, err := o.MarshalText()
		var again Outcome
		if err == nil {
			err = again.UnmarshalText(text)
		}
		if err != nil || string(text) != o.String() || again != o {
			t.Errorf("%v is written as %q and read as %v (%v)", o, text, again, err)
		}
	}
	for s := StampHardware; s <= StampUser; s++ {
		got = append(got, s.String())
		text, err := s.MarshalText()
		var again Stamp
		if err == nil {
			err = again.UnmarshalText(text)
		}
		if err != nil || string(text) != s.String() || again != s {
			t.Errorf("%v is written as %q and read as %v (%v)", s, text, again, err)
		}
	}
	for e := Orderly; e <= Unclosed; e++ {
		got = append(got, e.String())
		text, err := e.MarshalText()
		var again Ending
		if err == nil {
			err = again.UnmarshalText(text)
		}
		if err != nil || string(text) != e.String() || again != e {
			t.Errorf("%v is written as %q and read as %v (%v)", e, text, again, err)
		}
	}
	for l := LostUnknown; l <= LostSYNACK; l++ {
		got = append(got, l.String())
		text, err := l.MarshalText()
		again := LostSYNACK + 1
		if err == nil {
			err = again.UnmarshalText(text)
		}
		if err != nil || string(text) != l.String() || again != l {
			t.Errorf("%v is written as %q and read as %v (%v)", l, text, again, err)
		}
	}
	for m := HalfOpen; m <= Connect; m++ {
		got = append(got, m.String())
		text, err := m.MarshalText()
		again := Connect + 1
		if err == nil {
			err = again.UnmarshalText(text)
		}
		if err != nil || string(text) != m.String() || again != m {
			t.Errorf("%v is written as %q and read as %v (%v)", m, text, again, err)
		}
	}
	want := []string{"open", "closed", "unreachable", "timeout", "error", "hardware", "kernel", "tcp_info", "user",
		"orderly", "reset", "unclosed", "unknown", "syn", "syn_ack", "half-open", "full", "connect"}
	if !slices.Equal(got, want) {
		t.Errorf("the words are %q, want %q", got, want)
	}
}

func TestValuesWithoutAWordAreNotWritten(t *testing.T) {
	for _, tt := range []struct {
		value       encoding.TextMarshaler
		shown, want string
	}{
		{Outcome(0), "", "outcome 0 has no name"},
		{Error + 1, "outcome(6)", "outcome 6 has no name"},
		{Stamp(0), "", "stamp 0 has no name"},
		{StampUser + 1, "stamp(5)", "stamp 5 has no name"},
		{Ending(0), "", "ending 0 has no name"},
		{Unclosed + 1, "ending(4)", "ending 4 has no name"},
		{LostSYNACK + 1, "loss(3)", "loss 3 has no name"},
		{Connect + 1, "mode(3)", "mode 3 has no name"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			if got := fmt.Sprint(tt.value); got != tt.shown {
				t.Errorf("shown as %q, want %q", got, tt.shown)
			}
			if text, err := tt.value.MarshalText(); err == nil || err.Error() != tt.want {
				t.Errorf("written as %q (%v), want the error %s", text, err, tt.want)
			}
		})
	}
}

func TestUnknownWordsAreRefused(t *testing.T) {
	for _, tt := range []struct {
		value      encoding.TextUnmarshaler
		text, want string
	}{
		{new(Outcome), "opened", `outcome "opened" is unknown; it is one of [open closed unreachable timeout error]`},
		{new(Outcome), "", `outcome "" is unknown; it is one of [open closed unreachable timeout error]`},
		{new(Outcome), "Open", `outcome "Open" is unknown; it is one of [open closed unreachable timeout error]`},
		{new(Ending), "", `ending "" is unknown; it is one of [orderly reset unclosed]`},
		{new(Lost), "", `loss "" is unknown; it is one of [unknown syn syn_ack]`},
		{new(Mode), "half_open", `mode "half_open" is unknown; it is one of [half-open full connect]`},
		{new(Stamp), "outcome(1)", `stamp "outcome(1)" is unknown; it is one of [hardware kernel tcp_info user]`},
	} {
		t.Run(tt.want, func(t *testing.T) {
			if err := tt.value.UnmarshalText([]byte(tt.text)); err == nil || err.Error() != tt.want {
				t.Errorf("the error is %v, want %s", err, tt.want)
			}
		})
	}
}

func TestOnlyTheTargetItselfAnswers(t *testing.T) {
	for _, o := range append(Outcomes(), 0, Error+1) {
		if got, want := o.Answered(), o == Open || o == Closed; got != want {
			t.Errorf("%v answered: %t, want %t", o, got, want)
		}
	}
}
