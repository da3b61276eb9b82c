package rawsock

import (
	"encoding/binary"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// control returns a control message as the kernel lays it out.
func control(level, kind int32, words ...int64) []byte {
	size := len(words) * 8
	b := make([]byte, unix.CmsgSpace(size))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	copy(b[unix.CmsgLen(0):], unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), size))
	return b
}

func TestStampsAreFoundAmongControlMessages(t *testing.T) {
	const (
		seconds, nanos = 1_795_201_971, 369_785_123
		kernel         = seconds*1e9 + nanos
		card           = 86_400e9 + 7 // a clock that nobody has set
	)
	alone := control(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, seconds, nanos)
	soft := control(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, seconds, nanos, 0, 0, 0, 0)
	hard := control(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, 0, 0, 0, 0, 86_400, 7)
	both := control(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, seconds, nanos, 0, 0, 86_400, 7)
	old := control(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, seconds, nanos, 5, 5, 0, 0)
	other := control(unix.IPPROTO_IP, unix.IP_RECVERR, 1, 2, 3)
	odd := control(unix.IPPROTO_IP, unix.IP_TTL, 64)[:unix.CmsgLen(4)] // the last may lack its padding
	cut := slices.Clone(both)
	(*unix.Cmsghdr)(unsafe.Pointer(&cut[0])).SetLen(len(cut) + 1)
	tiny := slices.Clone(both)
	(*unix.Cmsghdr)(unsafe.Pointer(&tiny[0])).SetLen(unix.SizeofCmsghdr - 1)
	for _, tt := range []struct {
		name             string
		control          []byte
		kernel, hardware int64
	}{
		{"the first time alone", alone, kernel, 0},
		{"of a packet that the kernel saw", soft, kernel, 0},
		{"of a packet that the device sent", hard, 0, card},
		{"of a packet that both saw", both, kernel, card},
		{"the second time, which is out of use", old, kernel, 0},
		{"behind another message", slices.Concat(other, both), kernel, card},
		{"ahead of another message", slices.Concat(both, other), kernel, card},
		{"none at all", nil, 0, 0},
		{"none among others", slices.Concat(other, odd), 0, 0},
		{"none in a message", control(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, 0, 0, 0, 0, 0, 0), 0, 0},
		{"of another level", control(unix.IPPROTO_IP, unix.SCM_TIMESTAMPING, seconds, nanos), 0, 0},
		{"too short to hold one", control(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, seconds), 0, 0},
		{"too short to hold three", control(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, seconds, nanos, 0, 0, 86_400), kernel, 0},
		{"longer than what was received", cut, 0, 0},
		{"shorter than its own header", slices.Concat(tiny, both), 0, 0},
		{"a header cut short", both[:unix.SizeofCmsghdr-1], 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if k, h := stampsOf(tt.control); k != tt.kernel || h != tt.hardware {
				t.Errorf("stampsOf = %d, %d, want %d, %d", k, h, tt.kernel, tt.hardware)
			}
		})
	}
}

// Control messages come from the kernel; still nothing in them may make us read past their end.
func FuzzStamps(f *testing.F) {
	both := control(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, 1, 2, 0, 0, 3, 4)
	f.Add(both)
	f.Add(slices.Concat(control(unix.IPPROTO_IP, unix.IP_RECVERR, 1, 2), both))
	f.Add(both[:len(both)-1])
	f.Add(control(unix.SOL_SOCKET, unix.SCM_TIMESTAMPING, 1, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		kernel, hardware := stampsOf(b)
		messages, err := unix.ParseSocketControlMessage(b)
		if err != nil {
			return
		}
		var want [3]int64
		for _, m := range messages {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPING {
				for i := range len(m.Data) / 16 {
					if i < 3 {
						want[i] = int64(binary.NativeEndian.Uint64(m.Data[i*16:]))*1e9 + int64(binary.NativeEndian.Uint64(m.Data[i*16+8:]))
					}
				}
				break
			}
		}
		if kernel != want[0] || hardware != want[2] {
			t.Errorf("stamps %d, %d, want %d, %d", kernel, hardware, want[0], want[2])
		}
	})
}

// The kernel finds the second message where its own structure would end.
func TestMessagesLieWhereTheKernelLooks(t *testing.T) {
	const word = unsafe.Sizeof(uintptr(0))
	want := (unsafe.Sizeof(unix.Msghdr{}) + 4 + word - 1) / word * word
	if got := unsafe.Sizeof(mmsghdr{}); got != want {
		t.Errorf("struct mmsghdr has %d bytes, want %d", got, want)
	}
}
