package measurement

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// What protojson says is about the column in the JSON, which nobody has
// written, and begins with one of two kinds of space.
var (
	jsonPlace = regexp.MustCompile(`^proto:[\s\x{a0}]*(syntax error )?\(line \d+:(\d+)\): (.*)`)
	badValue  = regexp.MustCompile(`^invalid google.protobuf.(Duration|Timestamp) value (".*")$`)
	jsonField = regexp.MustCompile(`"(\w+)":[^:]*$`)
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
	value := badValue.FindStringSubmatch(message)
	switch {
	case value != nil && value[1] == "Duration":
		return fmt.Errorf("%s: %s is no duration; write seconds, as in 0.5s", field, value[2])
	case value != nil:
		return fmt.Errorf("%s: %s is no time; write it as in 2026-11-21T18:00:00Z", field, value[2])
	case strings.Contains(message, "Measurement.destination is already set"):
		return errors.New("targets and mesh are both given; a measurement has one of them")
	case field == "targets" && strings.HasPrefix(message, "unexpected token ["):
		return errors.New(`targets: the list stands one level deeper, as in targets: {targets: ["db.fra:5432"]}`)
	case field != "" && strings.HasPrefix(message, "unexpected token"):
		return fmt.Errorf("%s: %s", field, message)
	}
	return errors.New(message)
}
