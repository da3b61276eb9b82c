package controller

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"buf.build/go/protovalidate"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/synmesh/synmesh/controller/plan"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// ReadMeasurements reads a file of measurements: YAML in the shape of
// synmesh.v1.MeasurementFile. Fields that it does not know are refused.
func ReadMeasurements(path string) ([]plan.Measurement, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("measurements: %w", err)
	}
	ms, err := parseMeasurements(text)
	if err != nil {
		return nil, fmt.Errorf("measurements: %s: %w", path, err)
	}
	return ms, nil
}

func parseMeasurements(text []byte) ([]plan.Measurement, error) {
	source, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, oneLine(err)
	}
	if n := len(source.Docs); n > 1 {
		return nil, fmt.Errorf("%d YAML documents; all measurements stand in one", n)
	}
	var file map[string]json.RawMessage
	var written []json.RawMessage
	text, err = yaml.YAMLToJSON(text)
	if err != nil {
		return nil, oneLine(err)
	}
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
	var ms []plan.Measurement
	seen := make(map[string]bool)
	for i, one := range written {
		m, name, err := parseMeasurement(one)
		if err == nil && seen[name] {
			err = fmt.Errorf("measurement %q stands there twice", name)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", lineOf(source, i), err)
		}
		seen[name] = true
		ms = append(ms, m)
	}
	return ms, nil
}

// parseMeasurement reads one measurement, in the JSON form of its message.
func parseMeasurement(text []byte) (parsed plan.Measurement, name string, err error) {
	var m synmeshv1.Measurement
	if err := protojson.Unmarshal(text, &m); err != nil {
		return parsed, "", explain(text, err)
	}
	if parsed, err = plan.Parse(&m); err != nil {
		return parsed, "", err
	}
	var broken *protovalidate.ValidationError
	if err := protovalidate.Validate(&m); errors.As(err, &broken) {
		return parsed, "", fmt.Errorf("measurement %q: %s", m.GetName(), broken.Violations[0])
	} else if err != nil {
		return parsed, "", fmt.Errorf("measurement %q: %w", m.GetName(), err)
	}
	return parsed, m.GetName(), nil
}

// What protojson says is about the column in the JSON, which nobody has
// written, and begins with one of two kinds of space.
var (
	jsonPlace   = regexp.MustCompile(`^proto:[\s\x{a0}]*(syntax error )?\(line \d+:(\d+)\): (.*)`)
	badDuration = regexp.MustCompile(`^invalid google.protobuf.Duration value (".*")$`)
	jsonField   = regexp.MustCompile(`"(\w+)":[^:]*$`)
)

// explain says what is wrong with the JSON of a measurement in the operator's words.
func explain(text []byte, err error) error {
	found := jsonPlace.FindStringSubmatch(err.Error())
	if found == nil {
		return err
	}
	message, field := found[3], ""
	column, _ := strconv.Atoi(found[2]) // the expression takes digits only
	if before := jsonField.FindSubmatch(text[:min(max(column-1, 0), len(text))]); before != nil {
		field = string(before[1])
	}
	duration := badDuration.FindStringSubmatch(message)
	switch {
	case duration != nil:
		return fmt.Errorf("%s: %s is no duration; write seconds, as in 0.5s", field, duration[1])
	case strings.Contains(message, "Measurement.destination is already set"):
		return errors.New("targets and mesh are both given; a measurement has one of them")
	case field == "targets" && strings.HasPrefix(message, "unexpected token ["):
		return errors.New(`targets: the list stands one level deeper, as in targets: {targets: ["db.fra:5432"]}`)
	case field != "" && strings.HasPrefix(message, "unexpected token"):
		return fmt.Errorf("%s: %s", field, message)
	}
	return errors.New(message)
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
