package results

import (
	"strconv"
	"strings"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/history"
)

// mark is how far a reader of the history has come: all before the entry has been given, and of the
// entry so many rows, counted whether or not they are wanted, so that it means the same with each filter.
type mark struct {
	entry history.Cursor
	rows  int // allRows: the entry is done with
}

const (
	allRows = -1
	// cursorForm is the version of what cursors look like.
	cursorForm = "1."
)

// String returns the cursor: the form, the entry, and unless it is done with how many rows.
func (m mark) String() string {
	if m.rows == allRows {
		return cursorForm + m.entry.String()
	}
	return cursorForm + m.entry.String() + "." + strconv.Itoa(m.rows)
}

func parseMark(text string) (m mark, err error) {
	entry, rows, part := strings.Cut(strings.TrimPrefix(text, cursorForm), ".")
	m.rows = allRows
	m.entry, err = history.ParseCursor(entry)
	if part && err == nil {
		m.rows, err = strconv.Atoi(rows)
	}
	if err != nil || m.entry == nil || part && m.rows < 0 || m.String() != text {
		return mark{}, fault.Invalid("cursor %q is none of ours; use the cursor of the last response as it came, or none to begin now", text)
	}
	return m, nil
}
