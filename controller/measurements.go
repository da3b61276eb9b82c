package controller

import (
	"fmt"
	"os"

	"buf.build/go/protovalidate"
	"github.com/goccy/go-yaml"
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
	json, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, err
	}
	var file synmeshv1.MeasurementFile
	if err := protojson.Unmarshal(json, &file); err != nil {
		return nil, err
	}
	if err := protovalidate.Validate(&file); err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	var ms []plan.Measurement
	for _, m := range file.GetMeasurements() {
		if seen[m.GetName()] {
			return nil, fmt.Errorf("measurement %q stands there twice", m.GetName())
		}
		seen[m.GetName()] = true
		p, err := plan.Parse(m)
		if err != nil {
			return nil, err
		}
		ms = append(ms, p)
	}
	return ms, nil
}
