//go:build !linux

package rawsock

import (
	"errors"
	"testing"
)

func TestNothingIsWatchedElsewhere(t *testing.T) {
	_, open := OpenWatch(ourPorts)
	for _, err := range []error{open, new(Watch).Wait(), new(Watch).Take(nil)} {
		if !errors.Is(err, ErrUnsupported) {
			t.Errorf("the error is %v, want ErrUnsupported", err)
		}
	}
}
