package packet

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestDecodesOptions(t *testing.T) {
	tests := []struct {
		name, bytes string
		want        Options
		err         string // what the error says, if there is one
	}{
		{"no bytes are no options", "", Options{}, ""},
		{"Linux's SYN has five options", "020405b4 0402 080a00000001 00000000 01 030307",
			Options{HasMSS: true, MSS: 1460, SACKPermitted: true, Timestamps: true, TSVal: 1, HasWindowScale: true, WindowScale: 7}, ""},
		{"nothing behind the end of the list counts", "00 020405b4", Options{}, ""},
		{"padding of NOPs is nothing", "01010101", Options{}, ""},
		{"a byte is left behind unknown kinds", "fe04f989 220800112233445566", Options{},
			"packet: TCP option at byte 12: length is 1, want at least 2 (malformed)"},
		{"experiments and fast open are skipped", "fe04f989 2208001122334455 030302",
			Options{HasWindowScale: true, WindowScale: 2}, ""},
		{"the last of two MSS counts", "02040100 02040200", Options{HasMSS: true, MSS: 512}, ""},
		{"an MSS of 0 is there", "02040000", Options{HasMSS: true}, ""},
		{"a window scale above 14 stays what it is", "0303ff01", Options{HasWindowScale: true, WindowScale: 255}, ""},
		{"one SACK block", "0101 050a 00000001 00000002", Options{SACKCount: 1, SACK: [4]SACKBlock{{1, 2}}}, ""},
		{"four SACK blocks", "0522 00000001000000020000000300000004000000050000000600000007 00000008",
			Options{SACKCount: 4, SACK: [4]SACKBlock{{1, 2}, {3, 4}, {5, 6}, {7, 8}}}, ""},

		{"a kind without a length ends the list", "020405b4 02", Options{HasMSS: true, MSS: 1460},
			"packet: TCP option at byte 4: length is 1, want at least 2 (malformed)"},
		{"a length of 0 ends the list", "030307 fd00 020405b4", Options{HasWindowScale: true, WindowScale: 7},
			"packet: TCP option at byte 4: length is 0, want at least 2 (malformed)"},
		{"a length beyond the header ends the list", "030307 0204 05", Options{HasWindowScale: true, WindowScale: 7},
			"packet: TCP option at byte 4: MSS length is 4, want at most 3 (malformed)"},
		{"an MSS of the wrong length is left out, what follows is read", "020305 030307",
			Options{HasWindowScale: true, WindowScale: 7},
			"packet: TCP option at byte 1: MSS length is 3, want 4 (malformed)"},
		{"a window scale of the wrong length is left out", "0304 0707 0402", Options{SACKPermitted: true},
			"packet: TCP option at byte 1: window scale length is 4, want 3 (malformed)"},
		{"a SACK permitted of the wrong length is left out", "040300 0402", Options{SACKPermitted: true},
			"packet: TCP option at byte 1: SACK permitted length is 3, want 2 (malformed)"},
		{"timestamps of the wrong length are left out", "0806 00000001 0402", Options{SACKPermitted: true},
			"packet: TCP option at byte 1: timestamps length is 6, want 10 (malformed)"},
		{"half a SACK block is none", "0506 00000001 0402", Options{SACKPermitted: true},
			"packet: TCP option at byte 1: SACK length is 6, want 10, 18, 26 or 34 (malformed)"},
		{"a SACK without a block is none", "0502 0402", Options{SACKPermitted: true},
			"packet: TCP option at byte 1: SACK length is 2, want 10, 18, 26 or 34 (malformed)"},
		{"of two malformed options the first is told", "020305 030207 0402",
			Options{},
			"packet: TCP option at byte 1: MSS length is 3, want 4 (malformed)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got Options
			err := got.Decode(fromHex(t, tt.bytes))
			if tt.err == "" && err != nil {
				t.Errorf("error: %v", err)
			}
			if tt.err != "" {
				wantError(t, err, ErrMalformed, tt.err)
				tt.want.Malformed = true
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestOptionsThatDoNotFitAreRefused(t *testing.T) {
	tests := []struct {
		name string
		o    Options
		err  string
	}{
		{"four SACK blocks beside timestamps", Options{Timestamps: true, SACKCount: 4},
			"packet: TCP options: length is 44, want at most 40 (not encodable)"},
		{"five SACK blocks", Options{SACKCount: 5},
			"packet: TCP option: SACK count is 5, want at most 4 (not encodable)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := Segment{Src: src4, Dst: dst4, Options: tt.o}
			_, err := AppendTCP(nil, &s)
			wantError(t, err, ErrUnencodable, tt.err)
			_, err = NewTemplate(&s)
			wantError(t, err, ErrUnencodable, tt.err)
		})
	}
}

func TestOptionsComeBackAsTheyWereWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawOptions(t)
		size, aligned, err := want.layout()
		if err != nil {
			t.Skip("does not fit")
		}
		b := make([]byte, size)
		tsval := want.put(b, aligned)
		if want.Timestamps != (tsval >= 0) || tsval > 0 && tsval%2 != 0 {
			t.Errorf("TSVal stands at %d", tsval)
		}
		var got Options
		if err := got.Decode(b); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%x\n got %+v\nwant %+v", b, got, want)
		}
	})
}

// drawOptions makes options that are consistent: fields are zero without the
// flag that makes them count.
func drawOptions(t *rapid.T) Options {
	o := Options{SACKPermitted: rapid.Bool().Draw(t, "sackPermitted")}
	if o.HasMSS = rapid.Bool().Draw(t, "hasMSS"); o.HasMSS {
		o.MSS = rapid.Uint16().Draw(t, "mss")
	}
	if o.HasWindowScale = rapid.Bool().Draw(t, "hasWindowScale"); o.HasWindowScale {
		o.WindowScale = rapid.Uint8().Draw(t, "windowScale")
	}
	if o.Timestamps = rapid.Bool().Draw(t, "timestamps"); o.Timestamps {
		o.TSVal, o.TSEcr = rapid.Uint32().Draw(t, "tsval"), rapid.Uint32().Draw(t, "tsecr")
	}
	o.SACKCount = rapid.Uint8Range(0, 4).Draw(t, "sackCount")
	for i := range o.SACK[:o.SACKCount] {
		o.SACK[i] = SACKBlock{rapid.Uint32().Draw(t, "left"), rapid.Uint32().Draw(t, "right")}
	}
	return o
}
