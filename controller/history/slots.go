package history

import (
	"encoding/binary"

	"github.com/synmesh/synmesh/controller/history/rollup"
)

// groupSlots is how many summaries are in one record of a rollup at most: those
// of a quarter of an hour, or of a day, so that a query need not look at others.
var groupSlots = [...]int64{minutes: 15, hours: 24}

// A series has several records in a rollup: keys end with the number of the group, and
// 8 bytes that keep apart what came in parts.

// putSlots writes the summaries of a series, in order, as records.
func putSlots(out *builder, key []byte, tail uint64, slots []rollup.Slot, t tier) error {
	length := int64(t.slot())
	for len(slots) > 0 {
		group, n := floorDiv(slots[0].At, groupSlots[t]), 1
		for n < len(slots) && floorDiv(slots[n].At, groupSlots[t]) == group {
			n++
		}
		value := rollup.Append(nil, slots[:n])
		if err := out.put(seriesBucket, withTail(withTail(key, groupTail(group)), tail), value); err != nil {
			return err
		}
		out.span = out.span.with(times{slots[0].At * length, (slots[n-1].At + 1) * length})
		slots = slots[n:]
	}
	return nil
}

// parseSlotKey takes the key of such a record apart.
func parseSlotKey(key []byte) (series []byte, group int64, ok bool) {
	n := len(key) - 2*tailSize
	if n < 1 {
		return nil, 0, false
	}
	return key[:n:n], tailGroup(binary.BigEndian.Uint64(key[n:])), true
}
