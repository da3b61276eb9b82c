package controller

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/internal/identity/contexts"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestTheFirstStartMakesAnAdminAndTheNextStartsDoNot(t *testing.T) {
	dir := t.TempDir()
	c := start(t, config(dir))
	path := filepath.Join(dir, "operator.yaml")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the context file: %v, %v", info, err)
	}
	saved, err := contexts.Read(path)
	if err != nil || saved.Controller != c.Addr().String() {
		t.Errorf("the context is of controller %q: %v", saved.Controller, err)
	}
	me, err := synmeshv1.NewIdentityServiceClient(c.conn).WhoAmI(t.Context(), &synmeshv1.WhoAmIRequest{})
	if err != nil || !strings.HasSuffix(me.GetUri(), "/user/admin/operator") {
		t.Errorf("the controller takes its operator for %v: %v", me, err)
	}
	c.stop()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	again, err := New(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := again.close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("who may stop the controller can make an admin: %v", err)
	}
}

// A crash between the key and the certificate is made up for.
func TestAFirstStartThatWasCutOffIsCompleted(t *testing.T) {
	dir := t.TempDir()
	c, err := New(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "operator.yaml")
	saved, err := contexts.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	saved.State.Pending, saved.State.Key, saved.State.Chain = saved.State.Key, nil, nil
	if err := write(path, saved); err != nil {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	r := start(t, config(dir))
	if _, err := synmeshv1.NewIdentityServiceClient(r.conn).WhoAmI(t.Context(), &synmeshv1.WhoAmIRequest{}); err != nil {
		t.Error(err)
	}
}

// Lists come in pages, which a client asks for one by one.
func TestPagesMakeUpTheWhole(t *testing.T) {
	c := start(t, config(t.TempDir()))
	ctx, client := t.Context(), synmeshv1.NewIdentityServiceClient(c.conn)
	for _, name := range []string{"a-1", "b-1", "c-1"} {
		apitest.Enrol(t, c.Addr().String(), c.admin, name)
	}
	lists := map[string]func(size int32, page string) (got int, next string, err error){
		"3 tokens": func(size int32, page string) (int, string, error) {
			r, err := client.ListTokens(ctx, &synmeshv1.ListTokensRequest{PageSize: size, PageToken: page})
			return len(r.GetTokens()), r.GetNextPageToken(), err
		},
		"3 members": func(size int32, page string) (int, string, error) {
			r, err := client.ListMembers(ctx, &synmeshv1.ListMembersRequest{PageSize: size, PageToken: page})
			return len(r.GetMembers()), r.GetNextPageToken(), err
		},
		"1 users": func(size int32, page string) (int, string, error) {
			r, err := client.ListUsers(ctx, &synmeshv1.ListUsersRequest{PageSize: size, PageToken: page})
			return len(r.GetUsers()), r.GetNextPageToken(), err
		},
		"7 entries": func(size int32, page string) (int, string, error) {
			r, err := client.ListAuditEntries(ctx, &synmeshv1.ListAuditEntriesRequest{PageSize: size, PageToken: page})
			return len(r.GetEntries()), r.GetNextPageToken(), err
		},
	}
	for want, list := range lists {
		for _, size := range []int32{0, 1, 2} {
			all, page := 0, ""
			for range 10 {
				got, next, err := list(size, page)
				if err != nil || size > 0 && got > int(size) {
					t.Fatalf("a page of %d has %d: %v", size, got, err)
				}
				if all, page = all+got, next; page == "" {
					break
				}
			}
			if what := strings.Fields(want); fmt.Sprint(all) != what[0] {
				t.Errorf("in pages of %d there are %d %s, want %s", size, all, what[1], what[0])
			}
		}
	}
}

func TestWhatChangesIsInTheAuditLogWithWhoDidIt(t *testing.T) {
	c := start(t, config(t.TempDir()))
	agent := apitest.Enrol(t, c.Addr().String(), c.admin, "fra-1")
	client := synmeshv1.NewIdentityServiceClient(c.conn)
	if _, err := client.BanAgent(t.Context(), &synmeshv1.BanAgentRequest{Agent: "fra-1", Reason: "too loud"}); err != nil {
		t.Fatal(err)
	}
	m := &synmeshv1.Measurement{Name: "web", Destination: &synmeshv1.Measurement_Targets{Targets: &synmeshv1.TargetList{Targets: []string{"db.fra:5432"}}}}
	_, err := synmeshv1.NewMeasurementServiceClient(c.conn).ApplyMeasurements(t.Context(), &synmeshv1.ApplyMeasurementsRequest{Measurements: []*synmeshv1.Measurement{m}})
	if err != nil {
		t.Fatal(err)
	}
	log, err := client.ListAuditEntries(t.Context(), &synmeshv1.ListAuditEntriesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range log.GetEntries() {
		got = append(got, e.GetActor()+": "+e.GetAct()+" "+e.GetSubject())
	}
	want := "controller/controller-1: create user user/admin/operator, user/admin/operator: create token agent/fra-1, agent/fra-1: enrol agent/fra-1, " +
		"user/admin/operator: ban agent agent/fra-1, user/admin/operator: rotate gossip keys fleet/" + c.herald.fleet + ", user/admin/operator: "
	if all := strings.Join(got, ", "); !strings.HasPrefix(all, want) || !strings.HasSuffix(all, " measurements/web") || len(got) != 6 {
		t.Errorf("the log says %s", all)
	}
	a := apitest.Open(t, apitest.DialAs(t, c.Addr().String(), agent))
	a.Hello(&synmeshv1.Hello{Name: "fra-1"})
	if _, err := a.End(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a banned agent's session: %v", err)
	}
}

// Their certificate expires one day, or the file is lost. Who has the data folder gets in again.
func TestAnAdminIsMadeAnewWhereTheControllerIs(t *testing.T) {
	cfg := config(t.TempDir())
	c := start(t, cfg)
	file := filepath.Join(t.TempDir(), "again.yaml")
	if err := MakeOperator(cfg, "operator", file, ""); err == nil || !strings.Contains(err.Error(), "stop the controller first") {
		t.Errorf("while a controller runs: %v", err)
	}
	c.stop()
	if err := MakeOperator(cfg, "operator", file, ""); err != nil {
		t.Fatal(err)
	}
	if err := MakeOperator(cfg, "operator", file, ""); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("a file that is there: %v", err)
	}
	if err := MakeOperator(Config{Name: "x", DataDir: t.TempDir()}, "operator", file+"2", ""); err == nil || !strings.Contains(err.Error(), "there is no CA in") {
		t.Errorf("a folder without a CA: %v", err)
	}
	saved, err := contexts.Read(file)
	if err != nil || saved.Controller != c.Addr().String() {
		t.Fatalf("the new context is of controller %q: %v", saved.Controller, err)
	}
	c = start(t, cfg) // with the context file of before
	who, err := saved.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := synmeshv1.NewIdentityServiceClient(apitest.DialAs(t, c.Addr().String(), who)).ListTokens(t.Context(), &synmeshv1.ListTokensRequest{}); err != nil {
		t.Errorf("the new one: %v", err)
	}
	if _, err := synmeshv1.NewIdentityServiceClient(c.conn).ListTokens(t.Context(), &synmeshv1.ListTokensRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the one of before: %v", err)
	}
}
