package measurement

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// ReadFile reads the file at a path; see Read.
func ReadFile(path string) ([]*synmeshv1.Measurement, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("measurements: %w", err)
	}
	ms, err := Read(text)
	if err != nil {
		return nil, fmt.Errorf("measurements: %s: %w", path, err)
	}
	return ms, nil
}

// Read reads measurements: YAML or JSON in the shape of
// synmesh.v1.MeasurementFile. Fields that it does not know are refused, and so
// is whatever Check refuses. An error is one line, and says which.
func Read(text []byte) ([]*synmeshv1.Measurement, error) {
	source, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, oneLine(err)
	}
	if n := len(source.Docs); n > 1 {
		return nil, fmt.Errorf("%d YAML documents; all measurements stand in one", n)
	}
	written, err := split(text)
	if err != nil {
		return nil, err
	}
	var ms []*synmeshv1.Measurement
	seen := make(map[string]bool)
	for i, one := range written {
		m, err := readOne(one)
		if err == nil && seen[m.GetName()] {
			err = fmt.Errorf("measurement %q stands there twice", m.GetName())
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", lineOf(source, i), err)
		}
		seen[m.GetName()] = true
		ms = append(ms, m)
	}
	return ms, nil
}

// split returns the measurements of a file as JSON.
func split(text []byte) (written []json.RawMessage, err error) {
	if text, err = yaml.YAMLToJSON(text); err != nil {
		return nil, oneLine(err)
	}
	var file map[string]json.RawMessage
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, errors.New("the file is a list or a single value; all of it stands under the key measurements")
	}
	for _, field := range slices.Sorted(maps.Keys(file)) {
		if field != "measurements" {
			return nil, fmt.Errorf("unknown field %q; the file has only measurements", field)
		}
	}
	if len(file) > 0 && json.Unmarshal(file["measurements"], &written) != nil {
		return nil, errors.New("measurements is not a list; each of them begins with a dash, as in - name: web")
	}
	return written, nil
}

// readOne reads one measurement, in the JSON form of its message.
func readOne(text []byte) (*synmeshv1.Measurement, error) {
	m := &synmeshv1.Measurement{}
	if err := protojson.Unmarshal(text, m); err != nil {
		return nil, explain(text, err)
	}
	if _, err := Check(m); err != nil {
		return nil, err
	}
	return m, nil
}

// Format writes measurements as YAML that Read reads back.
func Format(ms ...*synmeshv1.Measurement) ([]byte, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(&synmeshv1.MeasurementFile{Measurements: ms})
	if err == nil {
		text, err = yaml.JSONToYAML(text)
	}
	if err != nil {
		return nil, fmt.Errorf("write measurements as YAML: %w", err)
	}
	return text, nil
}

// lineOf returns the line that a measurement begins on.
func lineOf(f *ast.File, i int) int {
	path, err := yaml.PathString(fmt.Sprintf("$.measurements[%d]", i))
	if err != nil {
		return 0
	}
	node, err := path.FilterFile(f)
	if err != nil {
		return 0
	}
	if m, ok := node.(*ast.MappingNode); ok && len(m.Values) > 0 {
		node = m.Values[0].Key // the node itself stands at its first colon
	}
	return node.GetToken().Position.Line
}

// oneLine leaves out the excerpt of the file that the YAML library shows.
func oneLine(err error) error {
	text, _, _ := strings.Cut(yaml.FormatError(err, false, false), "\n")
	if m := yamlPlace.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("line %s: %s", m[1], m[2])
	}
	return errors.New(text)
}

var yamlPlace = regexp.MustCompile(`^\[(\d+):\d+\] (.*)`)
