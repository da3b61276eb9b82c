package selector

import (
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestErrorsSayWhatIsWrongWhereAndWhatIsRight(t *testing.T) {
	long := strings.Repeat("x", 64)
	tests := []struct{ name, text, want string }{
		{"no value", "dc=", `selector "dc=": at 4: a value is missing; write dc=VALUE`},
		{"no value before a comma", "dc!=,x", `selector "dc!=,x": at 5: a value is missing; write dc!=VALUE`},
		{"no key", "=fra", `selector "=fra": at 1: a key is missing before '='; write KEY=VALUE`},
		{"no key before a set", "(fra)", `selector "(fra)": at 1: a key is missing before '('; write KEY=VALUE`},
		{"no term after a comma", "dc=fra, ", `selector "dc=fra, ": at 9: a term is missing; write KEY=VALUE, or take the comma away`},
		{"no term between commas", "a,,b", `selector "a,,b": at 3: a term is missing; write KEY=VALUE, or take the comma away`},
		{"no name after the exclamation mark", "!", `selector "!": at 2: a name is missing after '!'; write !NAME, or KEY!=VALUE`},
		{"a negation before a comparison", "!dc=fra", `selector "!dc=fra": at 4: '=' cannot follow !dc; write dc!=VALUE`},
		{"a negation before a set", "!dc in (fra)", `selector "!dc in (fra)": at 5: in cannot follow !dc; write dc notin (VALUE,VALUE)`},
		{"the reserved key alone", "dc=fra, name ", `selector "dc=fra, name ": at 9: name stands for the agent's name and needs a value; write name=NAME`},
		{"the reserved key negated", "!name", `selector "!name": at 2: name stands for the agent's name and needs a value; write name!=NAME`},
		{"a set without brackets", "dc in fra", `selector "dc in fra": at 7: '(' is missing after in; write dc in (VALUE,VALUE)`},
		{"an empty set", "dc notin ()", `selector "dc notin ()": at 11: a value is missing; write dc notin (VALUE,VALUE)`},
		{"a set that does not end", "dc in (fra,nyc", `selector "dc in (fra,nyc": at 15: ')' or ',' is missing after nyc; write dc in (VALUE,VALUE)`},
		{"a set without commas", "dc in (fra nyc)", `selector "dc in (fra nyc)": at 12: ')' or ',' is missing after fra; write dc in (VALUE,VALUE)`},
		{"two words", "dc fra", `selector "dc fra": at 4: fra follows dc without a sign between them; write dc=VALUE, or a comma`},
		{"two terms without a comma", "dc=fra rack=a1", `selector "dc=fra rack=a1": at 8: rack follows without a comma; write TERM,TERM`},
		{"two values", "dc=fra=nyc", `selector "dc=fra=nyc": at 7: '=' cannot stand here; write a comma, or end the selector`},
		{"a pattern", "dc=fr*", `selector "dc=fr*": at 6: '*' is not allowed; keys, names and values are made of letters, digits, '.', '_' and '-'`},
		{"a comparison of numbers", "cores>4", `selector "cores>4": at 6: '>' is not allowed; keys, names and values are made of letters, digits, '.', '_' and '-'`},
		{"characters are counted, not bytes", "münchen", `selector "münchen": at 2: 'ü' is not allowed; keys, names and values are made of letters, digits, '.', '_' and '-'`},
		{"a line break stays within the line", "dc=fra\nx", `selector "dc=fra\nx": at 7: '\n' is not allowed; keys, names and values are made of letters, digits, '.', '_' and '-'`},
		{"a long value", "dc=" + long, `selector "dc=` + long + `": at 4: xxxxxxxxxx... has 64 characters; keys, names and values have at most 63`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse(tt.text)
			if err == nil {
				t.Fatalf("%q was taken", tt.text)
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

// FuzzParse holds Parse and String to each other: what is written is read
// back as the same selector, and errors are one line.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"", "dc=fra", "dc == fra , !x", "dc in (nyc,fra),rack notin(a1)", "in in (in)", "!name", "name=fra-1", "dc=", "ü=ü", "a\xff"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("the error for %q is more than one line: %v", text, err)
			}
			return
		}
		again, err := Parse(s.String())
		if err != nil {
			t.Fatalf("%q is written %q, which is refused: %v", text, s, err)
		}
		if !reflect.DeepEqual(s, again) || s.String() != again.String() {
			t.Errorf("%q is written %q, which is read as %q", text, s, again)
		}
		s.Matches("fra-1", map[string]string{"dc": "fra"})
	})
}

func TestSelectorMeansWhatItsTermsMean(t *testing.T) {
	word := rapid.SampledFrom([]string{"a", "b", "c", "in", "notin"})
	gap := rapid.SampledFrom([]string{"", " ", "\t "})
	rapid.Check(t, func(t *rapid.T) {
		name := word.Draw(t, "name")
		labels := rapid.MapOf(word, word).Draw(t, "labels")
		var texts []string
		want := true
		for range rapid.IntRange(1, 4).Draw(t, "terms") {
			key, value, other := word.Draw(t, "key"), word.Draw(t, "value"), word.Draw(t, "other")
			g := gap.Draw(t, "gap")
			has := func(v string) bool { got, ok := labels[key]; return ok && got == v }
			_, isKey := labels[key]
			forms := []struct {
				text string
				want bool
			}{
				{key, isKey || name == key},
				{"!" + g + key, !isKey && name != key},
				{key + g + "=" + g + value, has(value)},
				{key + g + "==" + g + value, has(value)},
				{key + g + "!=" + g + value, !has(value)},
				{key + " in" + g + "(" + value + g + "," + other + ")", has(value) || has(other)},
				{key + " notin" + g + "(" + g + value + "," + other + g + ")", !has(value) && !has(other)},
				{"name" + g + "=" + value, name == value},
				{"name != " + value, name != value},
			}
			form := forms[rapid.IntRange(0, len(forms)-1).Draw(t, "form")]
			texts, want = append(texts, g+form.text+g), want && form.want
		}
		text := strings.Join(texts, ",")
		s, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Matches(name, labels); got != want {
			t.Errorf("%q picks %s with %v: %t, want %t", text, name, labels, got, want)
		}
	})
}
