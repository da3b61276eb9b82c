package gossip

import (
	"strings"
	"testing"
)

func TestOutboundIsTheAddressTowardsTheFirstThatCanBeReached(t *testing.T) {
	for _, others := range [][]string{{"127.0.0.1:7946"}, {"nonsense", "127.0.0.1:7946"}} {
		if at, err := Outbound(others); err != nil || at.String() != "127.0.0.1" {
			t.Errorf("%q: %v, %v", others, at, err)
		}
	}
	if _, err := Outbound([]string{"nonsense"}); err == nil || !strings.Contains(err.Error(), "no own address is known") {
		t.Errorf("error %v", err)
	}
}
