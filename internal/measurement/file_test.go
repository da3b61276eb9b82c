package measurement

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
)

const example = `# who probes what
measurements:
- name: mesh
  mesh: {}
- name: web
  sources: dc in (fra,nyc),!canary
  targets:
    targets: ["db.fra:5432", "10.0.0.2:22,80"]
  interval: 0.5s
  timeout: 2s
  flows: 4
  family: ADDRESS_FAMILY_IPV4
- name: some
  mesh: {selector: dc=fra}
  interval: 60s
`

func TestAFileOfMeasurementsIsRead(t *testing.T) {
	tests := []struct {
		name, text string
		want       int
	}{
		{"in full", example, 3},
		{"with nothing in it", "", 0},
		{"with nothing but comments", "# later\n", 0},
		{"with an empty list", "measurements: []\n", 0},
		{"with a list to come", "measurements:\n", 0},
		{"as JSON", `{"measurements": [{"name": "a", "mesh": {}}]}`, 1},
		{"with names that are alike in JSON and YAML", "measurements:\n- {name: a, mesh: {}, interval: 2s}\n", 1},
		{"with an alias", "measurements:\n- {name: a, sources: &s dc=fra, mesh: {}}\n- {name: b, sources: *s, mesh: {}}\n", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ms, err := Read([]byte(tt.text))
			if err != nil || len(ms) != tt.want {
				t.Errorf("got %d measurements and %v, want %d", len(ms), err, tt.want)
			}
		})
	}
}

func TestTheExampleThatComesWithTheProgramIsRight(t *testing.T) {
	ms, err := ReadFile(filepath.Join("..", "..", "deploy", "measurements.yaml"))
	if err != nil || len(ms) == 0 {
		t.Errorf("got %d measurements and %v", len(ms), err)
	}
}

func TestWhatIsWrongWithAFileIsSaidInOneLine(t *testing.T) {
	first := "measurements:\n- name: mesh\n  mesh: {}\n" // and something wrong from line 4 on
	tests := []struct{ name, text, want string }{
		{"a field that is unknown", first + "- name: web\n  mesh: {}\n  colour: red\n", `line 4: unknown field "colour"`},
		{"a field that is unknown, within a mesh", first + "- name: web\n  mesh: {colour: red}\n", `line 4: unknown field "colour"`},
		{"a field of the file that is unknown", first + "targets: []\n", `unknown field "targets"; the file has only measurements`},
		{"a name that is there twice", first + "- name: mesh\n  mesh: {}\n", `line 4: measurement "mesh" stands there twice`},
		{"a name with a space", first + "- name: a b\n  mesh: {}\n", `line 4: measurement: name "a b": ' ' is not allowed in a name`},
		{"a name that is a number", first + "- name: 12\n  mesh: {}\n", "line 4: invalid value for string field name: 12"},
		{"no name", first + "- mesh: {}\n", "line 4: measurement: name \"\": the name is missing"},
		{"a bad selector", first + "- name: web\n  sources: dc==\n  mesh: {}\n", `line 4: measurement "web": selector "dc==": at 5: a value is missing; write dc=VALUE`},
		{"a selector that is too long", first + "- name: web\n  sources: a" + strings.Repeat(",a", 500) + "\n  mesh: {}\n", `line 4: measurement "web": sources: `},
		{"a bad interval", first + "- name: web\n  mesh: {}\n  interval: 500ms\n", `line 4: interval: "500ms" is no duration; write seconds, as in 0.5s`},
		{"an end that is no time", first + "- name: web\n  mesh: {}\n  expire_time: tomorrow\n", `line 4: expire_time: "tomorrow" is no time; write it as in 2026-11-21T18:00:00Z`},
		{"an interval that is too short", first + "- name: web\n  mesh: {}\n  interval: 0.0001s\n", `line 4: measurement "web": interval 100µs is outside 1ms to 24h0m0s`},
		{"a target without a port", first + "- name: web\n  targets: {targets: [db.fra]}\n", `line 4: measurement "web": target "db.fra": no port; write db.fra:443`},
		{"targets that stand one level too high", first + "- name: web\n  targets: [db.fra:5432]\n", "line 4: targets: the list stands one level deeper"},
		{"both targets and a mesh", first + "- name: web\n  mesh: {}\n  targets: {targets: [\"a:1\"]}\n", "line 4: targets and mesh are both given"},
		{"neither targets nor a mesh", first + "- name: web\n", `line 4: measurement "web": no target`},
		{"an unknown family", first + "- name: web\n  mesh: {}\n  family: IPV4\n", `line 4: invalid value for enum field family: "IPV4"`},
		{"a family that is no family's number", first + "- name: web\n  mesh: {}\n  family: 9\n", `line 4: measurement "web": family: `},
		{"a word where a measurement should be", first + "- web\n", `line 4: `},
		{"a list that is none", "measurements: 5\n", "measurements is not a list"},
		{"a file that is a list", "- name: web\n  mesh: {}\n", "all of it stands under the key measurements"},
		{"several documents", first + "---\n" + first, "2 YAML documents; all measurements stand in one"},
		{"a key that is there twice", first + "- name: web\n  name: web\n", `line 5: mapping key "name" already defined`},
		{"indentation gone wrong", "measurements:\n  - name: a\n - name: b\n", "line 3: "},
		{"a tab", "measurements:\n\t- name: a\n", "line 2: "},
		{"an alias of nothing", "measurements: *all\n", `line 1: could not find alias "all"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Read([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want it to say %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "proto") {
				t.Errorf("the message is not one line in the operator's words: %q", err)
			}
		})
	}
}

func TestTheFileIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plan.yaml")
	if _, err := ReadFile(path); err == nil || !strings.Contains(err.Error(), "measurements: ") || !strings.Contains(err.Error(), path+": no such file") {
		t.Errorf("got %v, want that %s is not there", err, path)
	}
	if err := os.WriteFile(path, []byte("measurements: 5"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(path); err == nil || !strings.HasPrefix(err.Error(), "measurements: "+path+": ") {
		t.Errorf("got %v, want it to begin with the file", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(example)
	f.Add("measurements:\n- &m {name: a, mesh: {}}\n- *m\n")
	f.Add("measurements:\n- name: a\n  targets: {targets: ['[2001:db8::1]:1-9']}\n")
	f.Add("- a: b\n---\n")
	f.Fuzz(func(t *testing.T, text string) {
		ms, err := Read([]byte(text))
		if err != nil && (ms != nil || strings.ContainsAny(err.Error(), "\n\r")) {
			t.Errorf("got %d measurements and the message %q", len(ms), err)
		}
		for _, m := range ms {
			if err := protovalidate.Validate(m); err != nil {
				t.Errorf("%v does not keep the rules of the API: %v", m, err)
			}
		}
	})
}
