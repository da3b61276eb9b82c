package enrolments

import (
	"context"
	"fmt"
	"net"
	"testing"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/peer"
)

func TestOneSourceCannotUseUpWhatIsThereForTheOthers(t *testing.T) {
	l := newLimit(1, 2, rate.NewLimiter(1, 5))
	passed := func(source string, n int) (passed int) {
		for range n {
			if l.pass(source, "enrolments") == nil {
				passed++
			}
		}
		return passed
	}
	if n := passed("a", 100); n != 2 {
		t.Errorf("%d of one source pass", n)
	}
	if n := passed("b", 1) + passed("c", 2); n != 3 {
		t.Errorf("%d of the others pass", n)
	}
	if n := passed("d", 1); n != 0 {
		t.Errorf("%d are over the total", n)
	}
}

func TestTheMemoryOfSourcesIsBounded(t *testing.T) {
	l := newLimit(1, 1, rate.NewLimiter(rate.Inf, 1))
	for i := range 3 * maxSources {
		_ = l.pass(fmt.Sprint(i), "enrolments")
	}
	if len(l.sources) > maxSources {
		t.Errorf("%d are remembered", len(l.sources))
	}
}

func TestASourceIsAnAddressOrANetwork(t *testing.T) {
	for at, want := range map[string]string{
		"10.0.0.1:50": "10.0.0.1", "[::ffff:10.0.0.1]:50": "10.0.0.1", "[2001:db8:1:2:3:4:5:6]:50": "2001:db8:1:2::/64", "[fe80::1%eth0]:50": "fe80::/64",
	} {
		addr, err := net.ResolveTCPAddr("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		if got := from(peer.NewContext(context.Background(), &peer.Peer{Addr: addr})); got != want {
			t.Errorf("%s is of %s, want %s", at, got, want)
		}
	}
}
