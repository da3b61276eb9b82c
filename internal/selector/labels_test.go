package selector

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestLabelsAreRead(t *testing.T) {
	got, err := ParseLabels([]string{"dc=fra", "kernel=6.18", "Rack_1=-"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"dc": "fra", "kernel": "6.18", "Rack_1": "-"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNoLabelsAreAnEmptyMap(t *testing.T) {
	if got, err := ParseLabels(nil); err != nil || got == nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestLabelErrorsSayWhatIsRight(t *testing.T) {
	long := strings.Repeat("x", 64)
	many := make([]string, MaxLabels+1)
	for i := range many {
		many[i] = fmt.Sprintf("k%d=v", i)
	}
	tests := []struct {
		name   string
		labels []string
		want   string
	}{
		{"no sign", []string{"dc"}, `label "dc": '=' is missing; write KEY=VALUE`},
		{"no key", []string{"=fra"}, `label "=fra": the key is missing; it has 1 to 63 characters`},
		{"no value", []string{"dc="}, `label "dc=": the value is missing; it has 1 to 63 characters`},
		{"two signs", []string{"dc==fra"}, `label "dc==fra": '=' is not allowed in a value; use letters, digits, '.', '_' and '-'`},
		{"a space", []string{"dc =fra"}, `label "dc =fra": ' ' is not allowed in a key; use letters, digits, '.', '_' and '-'`},
		{"a long key", []string{long + "=a"}, `label "` + long + `=a": the key has 64 characters; 63 are allowed`},
		{"a long value", []string{"dc=" + long}, `label "dc=` + long + `": the value has 64 characters; 63 are allowed`},
		{"the reserved key", []string{"name=x"}, `label "name=x": the key name stands for the agent's name; choose another`},
		{"a key twice", []string{"dc=fra", "dc=nyc"}, `label "dc=nyc": the key dc has a value already, fra; write it once`},
		{"too many", many, `33 labels are given; an agent has at most 32`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			labels, err := ParseLabels(tt.labels)
			if err == nil || labels != nil {
				t.Fatalf("got %v, %v", labels, err)
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestLabelsFromElsewhereAreChecked(t *testing.T) {
	tests := []struct {
		name   string
		labels map[string]string
		want   string
	}{
		{"none", nil, ""},
		{"good ones", map[string]string{"dc": "fra", "rack": "a1"}, ""},
		{"an escape sequence", map[string]string{"dc": "\x1b[2J"}, `label "dc=\x1b[2J": '\x1b' is not allowed in a value; use letters, digits, '.', '_' and '-'`},
		{"the first key is named", map[string]string{"b": "", "a": ""}, `label "a=": the value is missing; it has 1 to 63 characters`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := CheckLabels(tt.labels); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestNamesAreChecked(t *testing.T) {
	if err := CheckName("fra-1.example"); err != nil {
		t.Error(err)
	}
	if err := CheckName("fra 1"); err == nil {
		t.Error("a name with a space was taken")
	}
}
