package web

import (
	"context"
	stdjson "encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/internal/identity"
)

func TestWhoHasNoGoodCertificateIsToldWhatToDo(t *testing.T) {
	b := serve(t)
	foreign := apitest.NewMembers(t).User(identity.Admin, 0)
	for _, http2 := range []bool{false, true} {
		for _, path := range []string{"/v1/agents", "/metrics", "/nowhere"} {
			resp := b.want(b.client(nil, http2), "GET", path, "", http.StatusUnauthorized, "no certificate was shown; show one of the fleet, as in curl --cert FILE --key FILE")
			if !resp.Close && !http2 {
				t.Error("the connection stays open")
			}
			b.want(b.client(foreign, http2), "GET", path, "", http.StatusUnauthorized, "another CA has signed it")
		}
	}
	if b.api.asked != nil {
		t.Error("the API was asked")
	}
}

func TestACertificateExpiresOnAConnectionThatLasts(t *testing.T) {
	b := serveTo(t, apitest.NewBriefMembers(t, 2*time.Second))
	c := b.user(identity.Viewer)
	b.want(c, "GET", "/v1/agents", "", 200, "fra-1")
	lines, _ := b.watch(c)
	if lines.Scan(); !strings.Contains(lines.Text(), "the certificate has expired") {
		t.Errorf("the stream's last line is %q", lines.Text())
	}
	b.want(c, "GET", "/v1/agents", "", http.StatusUnauthorized, "the certificate has expired")
}

func TestTheGuardDecidesForEveryCaller(t *testing.T) {
	b := serve(t)
	revoked := b.members.NewUser("gone", identity.Operator, 0)
	b.revoke("gone")
	const run = `{"spec":{"targets":[{"name":"a:1"}]},"selector":"x"}`
	for _, tt := range map[string]struct {
		who           *identity.Credentials
		read, measure int
		words         string
	}{
		"an agent":   {b.members.Agent("fra-1"), 403, 403, "you are agent/fra-1"},
		"a viewer":   {b.members.NewUser("v", identity.Viewer, 0), 200, 403, "this is for people who may measure"},
		"a measurer": {b.members.NewUser("o", identity.Operator, 0), 200, 200, `"runs/x"`},
		"a revoked":  {revoked, 403, 403, "revoked by"},
	} {
		for _, http2 := range []bool{false, true} {
			c := b.client(tt.who, http2)
			for _, path := range []string{"/v1/agents", "/metrics"} {
				b.want(c, "GET", path, "", tt.read, "")
			}
			b.want(c, "POST", "/v1/runs", run, tt.measure, tt.words)
		}
	}
}

func TestRequestsAreReadStrictly(t *testing.T) {
	b := serve(t)
	c := b.user(identity.Viewer)
	for _, query := range []string{"selector=dc%3Dnyc&pageSize=7", "selector=dc%3Dnyc&page_size=7"} {
		b.want(c, "GET", "/v1/agents?"+query, "", 200, `"fra-1"`)
		if a := b.api.asked; a.GetSelector() != "dc=nyc" || a.GetPageSize() != 7 {
			t.Errorf("%s is read as %v", query, a)
		}
	}
	const nested = "filter.targetAgents=dc%3Dfra&quantiles=0.5&quantiles=0.99&step=60s&startTime=2026-11-21T00:00:00Z"
	b.want(c, "GET", "/v1/results:query?"+nested, "", 200, `"series":`)
	if q := b.api.queried; q.GetFilter().GetTargetAgents() != "dc=fra" || len(q.GetQuantiles()) != 2 || q.GetStep().AsDuration() != time.Minute || q.GetStartTime().AsTime().Day() != 21 {
		t.Errorf("%s is read as %v", nested, q)
	}
	b.want(c, "POST", "/v1/results:query", `{"filter":{"targets":["a:1","b:2"]},"byFlow":true}`, 200, `"nextPageToken":`)
	if q := b.api.queried; len(q.GetFilter().GetTargets()) != 2 || !q.GetByFlow() {
		t.Errorf("the body is read as %v", q)
	}
	for _, tt := range []struct {
		name, method, path, body string
		code                     int
		words                    string
	}{
		{"a parameter that is none", "GET", "/v1/agents?page=7", "", 400, `"the query string has \"page\", which is no field of ListAgentsRequest"`},
		{"one below what is no message", "GET", "/v1/agents?selector.x=7", "", 400, "selector.x"},
		{"a value that is no text", "GET", "/v1/agents?selector=%ff", "", 400, `the value of \"selector\" in the query string is no UTF-8`},
		{"a path that is no text", "GET", "/v1/measurements/%ff", "", 400, "the path is no UTF-8"},
		{"a number that is none", "GET", "/v1/agents?pageSize=many", "", 400, "many"},
		{"a field that is none", "POST", "/v1/results:query", `{"page":7}`, 400, "page"},
		{"no JSON", "POST", "/v1/results:query", `{`, 400, "unexpected"},
		{"nothing there", "GET", "/v2/agents", "", 404, `there is nothing at \"/v2/agents\"`},
		{"another method", "DELETE", "/v1/agents", "", 405, "not for"},
		{"metrics by another method", "POST", "/metrics", "", 404, ""},
		{"too much", "POST", "/v1/results:query", `{"pageToken":"` + strings.Repeat("x", maxBody) + `"}`, 413, "more than 1048576 bytes"},
	} {
		resp, text := b.do(c, tt.method, tt.path, tt.body)
		var s struct {
			Code    int
			Message string
			Details []any
		}
		if err := stdjson.Unmarshal([]byte(text), &s); err != nil || s.Code == 0 || s.Message == "" || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %q is no status: %v", tt.name, text, err)
		}
		if resp.StatusCode != tt.code || !strings.Contains(text, tt.words) {
			t.Errorf("%s: got %d %s, want %d with %q", tt.name, resp.StatusCode, text, tt.code, tt.words)
		}
	}
}

// What a client says of itself is not what counts.
func TestHeadersAreNotPassedOn(t *testing.T) {
	b := serve(t)
	b.want(b.user(identity.Viewer), "GET", "/v1/agents", "", 200, "fra-1", "Grpc-Metadata-Synmesh-Relay-Ticket", "x",
		"Synmesh-Relay-Ticket", "x", "Authorization", "Bearer x", "X-Http-Method-Override", "DELETE", "Grpc-Timeout", "1n")
	if len(b.api.metadata["synmesh-relay-ticket"]) != 1 || b.api.metadata["authorization"] != nil {
		t.Errorf("passed on was %v", b.api.metadata)
	}
	if b.api.caller.Identity.Name != "viewer" {
		t.Errorf("the caller is taken for %v", b.api.caller.Identity)
	}
}

func TestAPageOfAnotherOriginGetsNothingDone(t *testing.T) {
	b := serve(t)
	c := b.user(identity.Operator)
	b.want(c, "POST", "/v1/runs", "{}", 403, "a page of another origin", "Sec-Fetch-Site", "cross-site")
	b.want(c, "POST", "/v1/runs", "{}", 403, "a page of another origin", "Origin", "https://example.org")
	b.want(c, "POST", "/v1/runs", `{"selector":"x"}`, 200, "runs/x", "Sec-Fetch-Site", "same-origin")
}

func TestAStreamComesLineByLineAndEndsWithARevocation(t *testing.T) {
	b := serve(t)
	for _, http2 := range []bool{false, true} {
		name := map[bool]string{false: "one", true: "two"}[http2]
		lines, _ := b.watch(b.client(b.members.NewUser(name, identity.Viewer, 0), http2))
		at := time.Now()
		b.revoke(name)
		if !lines.Scan() || !strings.Contains(lines.Text(), `"error":`) || !strings.Contains(lines.Text(), "revoked by") {
			t.Errorf("the line after is %q", lines.Text())
		}
		if lines.Scan() {
			t.Errorf("the stream goes on with %q", lines.Text())
		}
		if took := time.Since(at); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		<-b.api.watched
	}
}

func TestAStreamEndsWithItsClient(t *testing.T) {
	b := serve(t)
	who := b.members.User(identity.Viewer, 0)
	for _, http2 := range []bool{false, true} {
		_, end := b.watch(b.client(who, http2))
		end()
		select {
		case <-b.api.watched:
		case <-time.After(patience):
			t.Fatal("the stream goes on")
		}
	}
}

func TestWhoDoesNotReadIsCutOff(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		b := serve(t)
		b.server.http.Handler.(*guarded).takeWithin = 100 * time.Millisecond
		resp := b.open(context.Background(), b.client(b.members.User(identity.Viewer, 0), http2), "GET", "/v1/results:export", "")
		select {
		case <-b.api.watched:
		case <-time.After(patience):
			t.Error("the stream waits for ever")
		}
		_ = resp.Body.Close() // it has been cut off
	}
}

func TestABodyThatDoesNotComeIsNotWaitedFor(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		b := serve(t)
		b.server.http.Handler.(*guarded).bodyWithin = 100 * time.Millisecond
		never, w := io.Pipe()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		req, err := http.NewRequestWithContext(ctx, "POST", "https://"+b.address+"/v1/results:query", never)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := b.client(b.members.User(identity.Viewer, 0), http2).Do(req)
		if err == nil {
			if resp.StatusCode != http.StatusBadRequest {
				t.Errorf("got %d", resp.StatusCode)
			}
			_ = resp.Body.Close()
		} else if ctx.Err() != nil {
			t.Errorf("it is waited for")
		}
		cancel()
		_ = w.Close()
		if b.api.queried != nil {
			t.Error("the API was asked")
		}
	}
}

func TestRequestsUnderWayAreBounded(t *testing.T) {
	b := serve(t)
	first, second := b.user(identity.Viewer), b.user(identity.Operator)
	var ends []func()
	for range maxEach {
		_, end := b.watch(first)
		ends = append(ends, end)
	}
	resp := b.want(first, "GET", "/v1/agents", "", http.StatusTooManyRequests, "40 requests of yours are under way")
	if resp.Header.Get("Retry-After") == "" {
		t.Error("it is not told when to come again")
	}
	b.want(second, "GET", "/v1/agents", "", 200, "")
	for range maxEach {
		b.watch(second)
	}
	third := b.user(identity.Admin)
	for range maxRequests - 2*maxEach {
		b.watch(third)
	}
	b.want(b.client(b.members.NewUser("fourth", identity.Viewer, 0), true), "GET", "/metrics", "", http.StatusServiceUnavailable, "100 requests are under way")
	for _, end := range ends {
		end()
		<-b.api.watched
	}
	deadline := time.Now().Add(patience)
	for { // the HTTP server notices a moment after gRPC has
		resp, _ := b.do(first, "GET", "/v1/agents", "")
		if resp.StatusCode == 200 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("what has ended still counts")
		}
	}
}
