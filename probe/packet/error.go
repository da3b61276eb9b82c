package packet

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// What an [*Error] can be about, for errors.Is.
var (
	// ErrTruncated says that the capture ends before the bytes that are needed.
	ErrTruncated = errors.New("truncated")
	// ErrMalformed says that the packet contradicts itself or its RFC.
	ErrMalformed = errors.New("malformed")
	// ErrChecksum says that a checksum does not fit the bytes it covers.
	ErrChecksum = errors.New("wrong checksum")
	// ErrPartialChecksum says that a TCP checksum covers the pseudo-header
	// alone: the sender left the rest to a device that has not seen the packet
	// yet (Linux's CHECKSUM_PARTIAL). It is an [ErrChecksum], too.
	ErrPartialChecksum = fmt.Errorf("%w: partial, left to the device", ErrChecksum)
	// ErrUnencodable says that a value has no form on the wire.
	ErrUnencodable = errors.New("not encodable")
)

// Error says which field of a packet is wrong, where it stands, what it holds
// and what would be right. It wraps one of the errors above.
type Error struct {
	Layer  string // "IPv4", "TCP option", "quoted TCP" and so on
	Field  string // such as "total length"
	Offset int    // of the field in the bytes handed in; -1 when encoding
	Have   int    // what the field holds, 0 if that is no number

	rule  string // what would be right; may be a format for limit
	limit int
	err   error
	shown string // what the field holds if that is no number
}

// The usual rules.
const (
	exactly = "%d"
	atLeast = "at least %d"
	atMost  = "at most %d"
)

func (e *Error) Error() string {
	where := ""
	if e.Offset >= 0 {
		where = fmt.Sprintf(" at byte %d", e.Offset)
	}
	have := e.shown
	switch {
	case have != "":
	case e.rule == checksumRule:
		have = fmt.Sprintf(checksumRule, e.Have)
	default:
		have = strconv.Itoa(e.Have)
	}
	want := e.rule
	if strings.Contains(want, "%") {
		want = fmt.Sprintf(want, e.limit)
	}
	return fmt.Sprintf("packet: %s%s: %s is %s, want %s (%v)", e.Layer, where, e.Field, have, want, e.err)
}

// Unwrap returns what the error is about: [ErrTruncated], [ErrMalformed],
// [ErrChecksum], [ErrPartialChecksum] or [ErrUnencodable].
func (e *Error) Unwrap() error { return e.err }

// malformed and its siblings keep call sites to one line each.
func malformed(name, field string, offset, have int, rule string, limit int) *Error {
	return &Error{Layer: name, Field: field, Offset: offset, Have: have, rule: rule, limit: limit, err: ErrMalformed}
}

func unencodable(name, field string, have int, rule string, limit int) *Error {
	return &Error{Layer: name, Field: field, Offset: -1, Have: have, rule: rule, limit: limit, err: ErrUnencodable}
}

func truncated(name string, offset, have, want int) *Error {
	return &Error{Layer: name, Field: "captured length", Offset: offset, Have: have, rule: atLeast, limit: want, err: ErrTruncated}
}

// tooShort tells a header that the capture cut off (missing bytes were
// announced) from one that was never there.
func tooShort(name string, offset, have, want, missing int) *Error {
	if have+missing >= want {
		return truncated(name, offset, have, want)
	}
	return malformed(name, "length", offset, have, atLeast, want)
}
