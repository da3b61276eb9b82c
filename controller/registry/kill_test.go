//go:build unix

package registry

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

func init() {
	children["enrol"] = enrolOnce
}

// enrolOnce is a controller that has a token asked for by a crowd with a key each,
// and prints the keys that got a certificate. It says when it begins.
func enrolOnce(args []string) error {
	_, r, err := openAll(args[0], time.Now)
	if err != nil {
		return err
	}
	text, err := hex.DecodeString(args[1])
	if err != nil {
		return err
	}
	fmt.Println("begin")
	const crowd = 8
	done := make(chan struct{})
	for range crowd {
		go func() {
			defer func() { done <- struct{}{} }()
			key, err := identity.NewKey()
			if err != nil {
				return
			}
			if _, err := r.Enrol(identity.TokenHash(text), "", &key.PublicKey); err == nil {
				hash, _ := identity.HashKey(&key.PublicKey)
				fmt.Println(hex.EncodeToString(hash[:]))
			}
		}()
	}
	for range crowd {
		<-done
	}
	return r.Close()
}

// Whenever a controller dies, a token has given a certificate to one key or to none.
func TestAControllerKilledInMidIssueIssuesOnce(t *testing.T) {
	f := newFleet(t)
	const rounds = 30
	told, lost, unused := 0, 0, 0
	for round := range rounds {
		name := fmt.Sprintf("agent-%d", round)
		token := f.token(t, name)
		hash := token.Hash()
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		var winners []string
		for range 2 { // the second controller finds what the first has left
			winners = append(winners, killed(t, f.dir, hex.EncodeToString(hash[:]))...)
		}
		f.open(t)
		if len(winners) > 1 {
			t.Fatalf("%s: %d keys have a certificate: %v", name, len(winners), winners)
		}
		a, err := f.Agent(name)
		switch _, refused := f.Enrol(hash, "", &newKey(t).PublicKey); {
		case err != nil && refused == nil:
			if len(winners) > 0 {
				t.Fatalf("%s: the one who was told it is enrolled is forgotten", name)
			}
			unused++
		case err == nil && refused != nil:
			want(t, refused, ErrTokenUsed)
			if len(winners) > 0 && winners[0] != hex.EncodeToString(a.Key[:]) {
				t.Fatalf("%s: %s was told it is enrolled, and it is %v", name, winners[0], a.Key)
			}
			told += len(winners)
			lost += 1 - len(winners)
		default:
			t.Fatalf("%s: %v before, and then %v", name, err, refused)
		}
	}
	if n := f.acts(t, "enrol"); n != rounds {
		t.Errorf("%d enrolments are in the audit log, and %d agents", n, rounds)
	}
	t.Logf("%d tokens, %d kills: used and told %d, used and the answer lost %d, not used %d", rounds, 2*rounds, told, lost, unused)
}

// killed runs a controller and kills it at some moment of its work.
func killed(t *testing.T, dir, token string) (winners []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], dir, token)
	cmd.Env = append(os.Environ(), childEnv+"=enrol")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if err != nil { // and a line cut off has not been told to anybody
			break
		}
		if line == "begin\n" {
			timer := time.AfterFunc(rand.N(4*time.Millisecond), func() { _ = cmd.Process.Kill() })
			defer timer.Stop()
			continue
		}
		winners = append(winners, strings.TrimSpace(line))
	}
	_ = cmd.Wait() // it was killed
	return winners
}
