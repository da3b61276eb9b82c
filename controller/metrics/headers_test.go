package metrics

import (
	"maps"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
)

func TestHeadersAreReadStrictly(t *testing.T) {
	got, err := parseHeaders("# one\n\nAuthorization: Bearer a:b \r\n x-scope : 7\n")
	if want := map[string]string{"authorization": "Bearer a:b", "x-scope": "7"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	for text, want := range map[string]string{
		"a: b\nnothing":                         "line 2 is not NAME: VALUE",
		"a:":                                    "line 1 is not NAME: VALUE",
		": b":                                   "cannot be the name",
		"a b: c":                                "cannot be the name",
		"grpc-timeout: 1n":                      "cannot be the name",
		"key-bin: c":                            "cannot be the name",
		"a: sécret":                             "the value of a has characters",
		"a: b\nA: c":                            "line 2: a is there a second time",
		"a: " + strings.Repeat("b", maxHeaders): "are allowed",
	} {
		if _, err := parseHeaders(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "cret") {
			t.Errorf("%.20q: got %v, want %q", text, err, want)
		}
	}
}

// What is read is what gRPC takes, and reads the same again.
func FuzzParseHeaders(f *testing.F) {
	for _, text := range []string{"a: b\n", "# x\n\nAuthorization: Bearer a:b\r\n", "a:", ":", "grpc-x: 1", "a: b\na: c", "é: x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		headers, err := parseHeaders(text)
		if err != nil {
			return
		}
		again := ""
		for name, value := range headers {
			if md := metadata.Pairs(name, value); len(md[name]) != 1 || name == "" || strings.TrimSpace(value) != value || value == "" {
				t.Errorf("%q: %q", name, value)
			}
			again += name + ": " + value + "\n"
		}
		if len(again) > maxHeaders {
			return // a line may be without its space, or its end
		}
		if same, err := parseHeaders(again); err != nil || !maps.Equal(same, headers) {
			t.Errorf("%q is read as %q, and then %q, %v", text, headers, same, err)
		}
	})
}
