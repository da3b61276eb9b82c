package gossip

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
)

var thirdKey = []byte("0123456789abcdef")

func TestKeysAreReadAsWritten(t *testing.T) {
	const want = `"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=,MDEyMzQ1Njc4OWFiY2RlZg=="`
	keys := Keys{key, [][]byte{thirdKey}}
	text, err := json.Marshal(keys)
	if err != nil || string(text) != want {
		t.Fatalf("got %s, %v, want %s", text, err, want)
	}
	var got Keys
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, keys) {
		t.Errorf("got %#v, %v", got, err)
	}
	if _, err := json.Marshal(Keys{}); err == nil {
		t.Error("no keys were written")
	}
}

func TestKeysThatAreNoneAreRefused(t *testing.T) {
	const good = "MDEyMzQ1Njc4OWFiY2RlZg=="
	tests := []struct{ name, text, want string }{
		{"nothing", "", "the primary is missing"},
		{"no base64", "0123", "key 1 of 1 has 3 bytes; 16, 24 or 32 are allowed"},
		{"other characters", good + ",??", "key 2 is not base64"},
		{"a line break", good[:8] + "\n" + good[8:], "key 1 is not base64"},
		{"a space", good + ", " + good, "key 2 is not base64"},
		{"bits that are lost", good[:21] + "h==", "key 1 is not base64"},
		{"an empty key", good + ",", "key 2 of 2 has 0 bytes"},
		{"a key twice", good + "," + good, "keys 1 and 2 are the same"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var k Keys
			err := k.UnmarshalText([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !reflect.DeepEqual(k, Keys{}) {
				t.Errorf("got %#v, %v, want %q", k, err, tt.want)
			}
		})
	}
}

func TestKeysPrintAsNoSecret(t *testing.T) {
	keys := Keys{key, [][]byte{otherKey}}
	out, logger := newText(slog.LevelInfo)
	logger.Info("x", "keys", keys)
	for _, text := range []string{fmt.Sprint(keys), fmt.Sprintf("%+v %#v %s", keys, keys, keys), fmt.Sprintf("%+v", Config{Keys: keys}), out.String()} {
		if !strings.Contains(text, "2 gossip keys") || strings.Contains(text, "MDEy") || strings.Contains(text, "0123") || strings.Contains(text, "48 49 50") {
			t.Errorf("printed as %s", text)
		}
	}
}

func TestRotationTakesThreeSteps(t *testing.T) {
	steps, err := Keys{key, [][]byte{thirdKey}}.Rotate(otherKey)
	want := [3]Keys{
		{key, [][]byte{otherKey, thirdKey}},
		{otherKey, [][]byte{key, thirdKey}},
		{otherKey, nil},
	}
	if err != nil || !reflect.DeepEqual(steps, want) {
		t.Errorf("got %#v, %v", steps, err)
	}
	if _, err := (Keys{Primary: key}).Rotate(key); err == nil || !strings.Contains(err.Error(), "is the primary already") {
		t.Errorf("to the same: %v", err)
	}
	if _, err := (Keys{Primary: key}).Rotate(key[:5]); err == nil || !strings.Contains(err.Error(), "has 5 bytes") {
		t.Errorf("to a short one: %v", err)
	}
}

func TestRingHoldsWhatIsInstalled(t *testing.T) {
	ring, err := memberlist.NewKeyring(nil, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Keys{
		{key, [][]byte{otherKey, thirdKey}},
		{otherKey, [][]byte{key}},
		{thirdKey, [][]byte{key}},
		{otherKey, nil},
		{otherKey, nil},
		{key, [][]byte{thirdKey, otherKey}},
	} {
		before := ring.GetKeys()
		was := append([][]byte(nil), before...)
		if err := want.install(ring); err != nil {
			t.Fatal(err)
		}
		held := ring.GetKeys()
		if len(held) != 1+len(want.Others) || !bytes.Equal(held[0], want.Primary) {
			t.Errorf("the ring holds %d keys, %.4q first; want %d", len(held), held[0], 1+len(want.Others))
		}
		for _, k := range want.all() {
			if indexKey(held, k) < 0 {
				t.Errorf("the ring lacks %.4q", k)
			}
		}
		if !reflect.DeepEqual(before, was) {
			t.Error("keys moved under the eyes of a reader")
		}
	}
}

func FuzzKeys(f *testing.F) {
	f.Add("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=,MDEyMzQ1Njc4OWFiY2RlZg==")
	f.Add("MDEyMzQ1Njc4OWFiY2RlZg==")
	f.Add(",")
	f.Fuzz(func(t *testing.T, text string) {
		var k Keys
		if k.UnmarshalText([]byte(text)) != nil {
			return
		}
		if again, err := k.MarshalText(); err != nil || string(again) != text {
			t.Errorf("%q is written as %q, %v", text, again, err)
		}
	})
}
