//go:build linux

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

// agent waits until the only agent is in a state, and returns how long that took.
func (f *fleet) agentIs(state string) time.Duration {
	f.t.Helper()
	began := time.Now()
	f.until("the agent is "+state, func(out string) bool { return strings.Contains(out, `"state":"`+state+`"`) }, "get", "agents", "-o", "jsonl")
	return time.Since(began)
}

// said runs a command that has to succeed.
func (f *fleet) said(args ...string) string {
	f.t.Helper()
	stdout, stderr, code := f.probectl(args...)
	if code != 0 {
		f.t.Fatalf("%v: exit code %d, stdout %q, stderr %q", args, code, stdout, stderr)
	}
	return stdout
}

func TestABanAndItsEndTakeEffectWithinFiveSeconds(t *testing.T) {
	f := newFleet(t, "fra")
	if out := f.said("ban", "fra-1", "--reason", "too loud"); out != "agent/fra-1 banned\n" {
		t.Errorf("got %q", out)
	}
	if took := f.agentIs("disconnected"); took > 5*time.Second {
		t.Errorf("the session went on for %v", took)
	}
	if out := f.said("get", "members"); !strings.Contains(out, "banned") || !strings.Contains(out, "too loud") {
		t.Errorf("the members are\n%s", out)
	}
	f.said("unban", "fra-1")
	if took := f.agentIs("connected"); took > 5*time.Second {
		t.Errorf("it took %v to come back", took)
	}
	audit := f.said("get", "audit", "-o", "csv")
	for _, want := range []string{"user/admin/operator,ban agent,agent/fra-1,too loud", "user/admin/operator,unban agent,agent/fra-1"} {
		if !strings.Contains(audit, want) {
			t.Errorf("the audit log does not say %q:\n%s", want, audit)
		}
	}
}

// log collects what a process says.
type log struct{ strings.Builder }

// Two hosts with the same state fight about the session; that has both of them
// renew, and the controller sees that there are two.
func TestACopyOfAnAgentsStateLocksBoth(t *testing.T) {
	f := newFleet(t, "fra", "nyc")
	copied := filepath.Join(t.TempDir(), "copy")
	must(t, os.CopyFS(copied, os.DirFS(f.states["fra"])))
	must(t, os.Chmod(filepath.Join(copied, "identity"), 0o700))
	must(t, filepath.WalkDir(copied, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = os.Chmod(path, 0o600)
		}
		return err
	}))
	thief := command(t, "agent", f.address(), "fra", copied)
	said := &log{}
	thief.Stderr = said
	must(t, f.operator.Start(thief)) // another host than that of the original
	ended := false
	end := func() {
		if !ended {
			ended = true
			_ = thief.Process.Kill()
			_ = thief.Wait()
		}
	}
	t.Cleanup(end)
	members := f.until("the agent is locked", func(out string) bool { return strings.Contains(out, `"state":"locked"`) }, "get", "members", "-o", "jsonl")
	if !strings.Contains(members, "its state folder has been copied or put back") {
		t.Errorf("no reason is given:\n%s", members)
	}
	f.until("neither is connected", func(out string) bool {
		return strings.Contains(out, "fra-1") && strings.Count(out, `"state":"connected"`) == 1
	}, "get", "agents", "-o", "jsonl")
	// Locked they stay, until one of them enrols again.
	_, stderr, code := f.probectl("token", "create", "--agent", "fra-1")
	if code != 2 || !strings.Contains(stderr, "unlock it, and enrol it with a new token") {
		t.Errorf("a token for a locked agent: exit code %d, %q", code, stderr)
	}
	end()
	must(t, f.agents["fra"].Process.Kill())
	_ = f.agents["fra"].Wait()
	if out := said.String(); !strings.Contains(out, "locked by agent/fra-1") {
		t.Errorf("the copy does not say why it is kept out:\n%s", out)
	}
	f.said("unlock", "fra-1")
	f.enrol("fra")
	f.agents["fra"] = f.start(f.hosts["fra"], "agent", f.address(), "fra", f.states["fra"])
	f.until("both are connected", func(out string) bool { return strings.Count(out, `"state":"connected"`) == 2 }, "get", "agents", "-o", "jsonl")
}

func TestATokenLetsInOneHostOnceAndPinsTheFleet(t *testing.T) {
	f := newFleet(t, "fra")
	other := newFleet(t)
	enroll := func(address, token, state string) error {
		c := command(t, "enroll", address, token, state)
		c.Stderr = nil
		return runOnHost(f, c)
	}
	token := strings.TrimSpace(f.said("token", "create", "--agent", "nyc-1"))
	stranger := strings.TrimSpace(other.said("token", "create", "--agent", "nyc-1"))
	if err := enroll(f.address(), stranger, t.TempDir()); err == nil {
		t.Error("the controller of another fleet was believed")
	}
	if err := enroll(f.address(), token, t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := enroll(f.address(), token, t.TempDir()); err == nil {
		t.Error("a token let in two hosts")
	}
	var tokens []tokenView
	must(t, json.Unmarshal([]byte(f.said("token", "list", "-o", "json")), &tokens))
	i := slices.IndexFunc(tokens, func(v tokenView) bool { return v.Agent == "nyc-1" })
	if i < 0 || tokens[i].State != "used" {
		t.Errorf("the tokens are %+v", tokens)
	}
	f.said("token", "create", "--agent", "sin-1")
	must(t, json.Unmarshal([]byte(f.said("token", "list", "-o", "json")), &tokens))
	i = slices.IndexFunc(tokens, func(v tokenView) bool { return v.Agent == "sin-1" })
	if out := f.said("token", "revoke", tokens[i].ID); out != "token/"+tokens[i].ID+" revoked\n" {
		t.Errorf("got %q", out)
	}
}

func runOnHost(f *fleet, c *exec.Cmd) error {
	must(f.t, f.hosts["fra"].Start(c))
	return c.Wait()
}

func TestPeopleMayDoWhatTheirRoleSays(t *testing.T) {
	f := newFleet(t, "fra")
	file := filepath.Join(t.TempDir(), "bob.yaml")
	f.said("user", "create", "bob", "--role", "viewer", "--file", file)
	must(t, identity.CheckPrivate(file))
	as := func(args ...string) (string, string, int) {
		return runOn(t, f.operator, append([]string{"--controller", f.address(), "--context", file}, args...)...)
	}
	if out, _, code := as("whoami"); code != 0 || !strings.Contains(out, "/user/viewer/bob until ") {
		t.Errorf("exit code %d, %q", code, out)
	}
	if _, _, code := as("get", "agents"); code != 0 {
		t.Errorf("a viewer cannot read: exit code %d", code)
	}
	for _, args := range [][]string{{"run", "fra-1"}, {"ban", "fra-1", "--reason", "x"}, {"token", "create", "--agent", "x"}, {"get", "audit"}} {
		if _, stderr, code := as(args...); code != 3 || !strings.Contains(stderr, "; you are user/viewer/bob") {
			t.Errorf("%v: exit code %d, %q", args, code, stderr)
		}
	}
	f.said("user", "revoke", "bob", "--reason", "left")
	if _, stderr, code := as("get", "agents"); code != 3 || !strings.Contains(stderr, "revoked by user/admin/operator") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	if out := f.said("user", "list"); !strings.Contains(out, "left") {
		t.Errorf("the users are\n%s", out)
	}
}

// Other programs take PEM files; so does probectl, as from an own PKI.
func TestAProgramGetsItsCertificateAsPEM(t *testing.T) {
	f := newFleet(t)
	folder, file := filepath.Join(t.TempDir(), "dashboard"), filepath.Join(t.TempDir(), "dashboard.yaml")
	if out := f.said("user", "create", "dashboard", "--role", "viewer", "--pem", folder); out != "user/dashboard created: "+folder+"\n" {
		t.Errorf("got %q", out) // and no key is printed
	}
	in := func(name string) string { return filepath.Join(folder, name) }
	for _, name := range []string{keyPEM, certificatePEM, rootsPEM} {
		must(t, identity.CheckPrivate(in(name)))
	}
	pair, err := tls.LoadX509KeyPair(in(certificatePEM), in(keyPEM))
	must(t, err)
	roots, err := os.ReadFile(in(rootsPEM))
	must(t, err)
	trusted, between := x509.NewCertPool(), x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(roots) {
		t.Error("there are no roots")
	}
	for _, der := range pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		must(t, err)
		between.AddCert(c)
	}
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: trusted, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	must(t, err)
	must(t, os.WriteFile(in("context.yaml"), []byte("certificate: "+certificatePEM+"\nkey: "+keyPEM+"\nroots: "+rootsPEM+"\n"), 0o600))
	whoami := func(context string) string {
		out, stderr, code := runOn(t, f.operator, "--controller", f.address(), "--context", context, "whoami")
		if code != 0 {
			t.Errorf("exit code %d, %q", code, stderr)
		}
		return out
	}
	if out := whoami(in("context.yaml")); !strings.Contains(out, "/user/viewer/dashboard until ") {
		t.Errorf("got %q", out)
	}

	// The next ones take their place, and stand in a context as well.
	f.said("user", "revoke", "dashboard", "--reason", "test")
	if out := f.said("user", "create", "dashboard", "--role", "viewer", "--pem", folder, "--file", file); out != "user/dashboard created: "+file+", "+folder+"\n" {
		t.Errorf("got %q", out)
	}
	if a, b := whoami(in("context.yaml")), whoami(file); a != b {
		t.Errorf("the folder has %q, and the context %q", a, b)
	}

	// Where the key cannot be kept, nobody is made.
	must(t, os.WriteFile(in("file"), nil, 0o600))
	if _, stderr, code := f.probectl("user", "create", "lost", "--role", "viewer", "--pem", in("file")); code != exitUsage || !strings.Contains(stderr, "--pem") {
		t.Errorf("into a file: exit code %d, %q", code, stderr)
	}
	if out := f.said("user", "list"); strings.Contains(out, "lost") {
		t.Errorf("the users are\n%s", out)
	}
}

func TestTheKeysOfTheGossipAreChangedOnDemandAndByABan(t *testing.T) {
	f := newFleet(t, "fra")
	if out := f.said("gossip", "rotate"); out != "gossip keys changed on 0 agents\n" { // fra-1 does not gossip
		t.Errorf("got %q", out)
	}
	f.said("ban", "fra-1", "--reason", "too loud")
	audit := f.said("get", "audit", "-o", "csv")
	if n := strings.Count(audit, "user/admin/operator,rotate gossip keys,fleet/"); n != 2 || !strings.Contains(audit, "agent fra-1 was banned") {
		t.Errorf("the audit log says\n%s", audit)
	}
}
