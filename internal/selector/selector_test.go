package selector

import "testing"

func TestSelectorPicksAgents(t *testing.T) {
	labels := map[string]string{"dc": "fra", "rack": "a1", "canary": "yes"}
	tests := []struct {
		name, selector string
		want           bool
	}{
		{"nothing picks every agent", "", true},
		{"spaces alone pick every agent", " \t ", true},
		{"a label has the value", "dc=fra", true},
		{"a label has the value, written with two signs", "dc==fra", true},
		{"a label has another value", "dc=nyc", false},
		{"a label is missing", "zone=fra", false},
		{"values are compared with their case", "dc=FRA", false},
		{"a value is excluded", "dc!=fra", false},
		{"another value is excluded", "dc!=nyc", true},
		{"a value of a missing label is excluded", "zone!=fra", true},
		{"the value is one of a set", "dc in (nyc, fra)", true},
		{"the value is none of a set", "dc in (nyc,sin)", false},
		{"the label of a set is missing", "zone in (fra)", false},
		{"a set with the value is excluded", "dc notin (nyc,fra)", false},
		{"a set without the value is excluded", "dc notin (nyc,sin)", true},
		{"a set of a missing label is excluded", "zone notin (fra)", true},
		{"a bare word is the agent's name", "fra-1", true},
		{"a bare word is a key", "canary", true},
		{"a bare word is neither name nor key", "fra-2", false},
		{"a bare word is no value", "a1", false},
		{"the agent's name is excluded", "!fra-1", false},
		{"a key is excluded", "!canary", false},
		{"another name is excluded", "!fra-2", true},
		{"the reserved key is the agent's name", "name=fra-1", true},
		{"the reserved key is another name", "name=fra-2", false},
		{"the reserved key is not looked up among the labels", "name=canary", false},
		{"the reserved key takes a set", "name in (fra-2,fra-1)", true},
		{"the reserved key is negated", "name!=fra-1", false},
		{"the reserved key is negated with a set", "name notin (fra-2,fra-3)", true},
		{"all terms hold", "dc=fra,rack=a1,!nyc-1", true},
		{"one term of several does not hold", "dc=fra,rack=a2", false},
		{"a word of the grammar is a key or a name too", "in", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse(tt.selector)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Matches("fra-1", labels); got != tt.want {
				t.Errorf("%q picks: %t, want %t", tt.selector, got, tt.want)
			}
		})
	}
}

func TestLabelWithTheReservedKeyIsNotLookedAt(t *testing.T) {
	s, err := Parse("name=mallory")
	if err != nil {
		t.Fatal(err)
	}
	if s.Matches("fra-1", map[string]string{"name": "mallory"}) {
		t.Error("a label called name stood in for the agent's name")
	}
}

func TestZeroSelectorPicksEveryAgent(t *testing.T) {
	var s Selector
	if !s.Matches("fra-1", nil) || s.String() != "" {
		t.Errorf("the zero selector is %q and picks: %t", s, s.Matches("fra-1", nil))
	}
}

func TestSelectorIsWrittenInOneForm(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"two signs become one", "dc==fra", "dc=fra"},
		{"spaces go", "  dc =  fra ,\t! x ", "!x,dc=fra"},
		{"terms are sorted and said once", "rack=a1,dc=fra,rack=a1", "dc=fra,rack=a1"},
		{"values are sorted and said once", "dc in ( nyc,fra , nyc )", "dc in (fra,nyc)"},
		{"a set of one is a value", "dc in (fra)", "dc=fra"},
		{"a set of one is excluded as a value", "dc notin (fra,fra)", "dc!=fra"},
		{"a set needs no space", "dc notin(nyc,fra)", "dc notin (fra,nyc)"},
		{"the words of the grammar may be keys", "in in (in,notin),notin", "in in (in,notin),notin"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.String(); got != tt.want {
				t.Errorf("%q is written %q, want %q", tt.text, got, tt.want)
			}
		})
	}
}

func BenchmarkMatches(b *testing.B) {
	s, err := Parse("dc in (fra,nyc,sin),!canary,rack!=a2")
	if err != nil {
		b.Fatal(err)
	}
	labels := map[string]string{"dc": "nyc", "rack": "a1", "kernel": "6.18"}
	b.ReportAllocs()
	for b.Loop() {
		if !s.Matches("nyc-1", labels) {
			b.Fatal("not picked")
		}
	}
}
