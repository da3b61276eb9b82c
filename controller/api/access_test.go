package api

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/synmesh/synmesh/controller/api/access"
	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/registry"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Who may call what, written down a second time: who is not named here is refused.
var mayCall = func() map[string]string {
	const (
		everybody = "nobody, expired agent, agent, superseded agent, banned agent, locked agent, viewer, operator, admin, revoked admin, expired admin, controller, foreign agent, foreign admin"
		members   = "agent, viewer, operator, admin, controller"
		read      = "viewer, operator, admin"
		measure   = "operator, admin"
		govern    = "admin"
	)
	m := make(map[string]string)
	for service, methods := range map[string]map[string]string{
		"synmesh.v1.EnrolmentService": {
			"Enroll": everybody, "Renew": "expired agent, agent, superseded agent", "Announce": "agent", "Follow": "agent"},
		"synmesh.v1.AgentService": {"Session": "agent"},
		"synmesh.v1.IdentityService": {
			"WhoAmI": members, "ListMembers": read, "ListUsers": govern, "ListTokens": govern, "ListAuditEntries": govern,
			"CreateToken": govern, "RevokeToken": govern, "BanAgent": govern, "UnbanAgent": govern, "UnlockAgent": govern, "RotateGossipKeys": govern,
			"CreateUser": govern, "RevokeUser": govern},
		"synmesh.v1.BackupService": {"Backup": govern},
		"synmesh.v1.FleetService":  {"ListAgents": read},
		"synmesh.v1.ResultService": {"ListResults": read, "Matrix": read, "Query": read, "Watch": read, "Export": read},
		"synmesh.v1.RunService":    {"Run": measure, "Attend": measure},
		"synmesh.v1.MeasurementService": {
			"ListMeasurements": read, "GetMeasurement": read, "GetTimetable": read,
			"ApplyMeasurements": measure, "DeleteMeasurements": measure},
		"grpc.health.v1.Health":                    {"Check": members, "List": members, "Watch": members},
		"grpc.reflection.v1.ServerReflection":      {"ServerReflectionInfo": read},
		"grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": read},
	} {
		for method, who := range methods {
			m["/"+service+"/"+method] = who
		}
	}
	return m
}()

// served returns the methods of the server.
func served(s *Server) (methods []string) {
	for service, info := range s.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			methods = append(methods, "/"+service+"/"+m.Name)
		}
	}
	slices.Sort(methods)
	return methods
}

func TestThereIsOneRuleForEachMethod(t *testing.T) {
	b := &bench{T: t, members: apitest.NewMembers(t)}
	s, err := New(b.config(&apitest.History{}))
	if err != nil {
		t.Fatal(err)
	}
	methods, ruled := served(s), access.Methods()
	slices.Sort(ruled)
	for _, m := range methods {
		if !slices.Contains(ruled, m) {
			t.Errorf("%s has no rule in package access: write down who may call it", m)
		}
	}
	for _, m := range ruled {
		if !slices.Contains(methods, m) {
			t.Errorf("package access has a rule for %s, which is not served", m)
		}
	}
	if listed := slices.Sorted(maps.Keys(mayCall)); !slices.Equal(listed, methods) {
		t.Errorf("this test looks at\n%s\nand served are\n%s", strings.Join(listed, "\n"), strings.Join(methods, "\n"))
	}
}

// callers returns somebody of each sort. It takes more than a day.
func (b *bench) callers() map[string]*grpc.ClientConn {
	b.Helper()
	m, foreign := b.members, apitest.NewMembers(b)
	who := map[string]*identity.Credentials{"expired agent": m.Agent("expired-1")}
	must := func(errs ...error) {
		b.Helper()
		if err := errors.Join(errs...); err != nil {
			b.Fatal(err)
		}
	}
	who["expired admin"] = m.NewUser("past", identity.Admin, time.Minute)
	time.Sleep(25 * time.Hour)
	who["agent"] = m.Agent("fra-1")
	who["superseded agent"] = m.Agent("superseded-1")
	next := m.Renew(who["superseded agent"])
	must(m.Admit(next.Identity, identity.HashOf(next.Leaf())))
	who["banned agent"] = m.Agent("banned-1")
	must(m.Ban(b.root(), "banned-1", "test"))
	who["locked agent"] = m.Agent("locked-1")
	m.Renew(who["locked agent"])
	if _, err := m.Registry.Renew("locked-1", identity.HashOf(who["locked agent"].Leaf()), &apitest.NewKey(b).PublicKey); !errors.Is(err, registry.ErrLocked) {
		b.Fatalf("a copy is not found out: %v", err)
	}
	who["viewer"] = m.NewUser("v", identity.Viewer, 0)
	who["operator"] = m.NewUser("o", identity.Operator, 0)
	who["admin"] = m.NewUser("a", identity.Admin, 0)
	who["revoked admin"] = m.NewUser("r", identity.Admin, 0)
	must(m.RevokeUser(b.root(), "r", "test"))
	self, err := m.Self.Current()
	must(err)
	who["controller"] = self
	// They believe our controller, and show what another CA has signed.
	for sort, theirs := range map[string]*identity.Credentials{"foreign agent": foreign.Agent("fra-1"), "foreign admin": foreign.User(identity.Admin, 0)} {
		who[sort] = &identity.Credentials{Identity: self.Identity, Certificate: theirs.Certificate, Roots: self.Roots}
	}
	conns := map[string]*grpc.ClientConn{
		"nobody": apitest.Connect(b, b.pipe, credentials.NewTLS(identity.PinnedTLS(identity.NewToken(m.CA.RootKey()), nil))),
	}
	for sort, c := range who {
		conns[sort] = b.as(c)
	}
	return conns
}

// allowed calls a method with an empty message, and tells whether access let it through.
func allowed(t *bench, conn *grpc.ClientConn, method string) (bool, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err == nil {
		if err = st.SendMsg(&emptypb.Empty{}); err == nil || errors.Is(err, io.EOF) {
			if err = st.CloseSend(); err == nil {
				err = st.RecvMsg(&emptypb.Empty{})
			}
		}
	}
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.Aborted:
		return false, err
	case codes.Unavailable, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal:
		t.Errorf("%s: %v", method, err)
	}
	return true, err
}

func TestEveryMethodForEverySortOfCaller(t *testing.T) {
	bubble(t, func(b *bench) {
		for sort, conn := range b.callers() {
			for method, who := range mayCall {
				want := slices.Contains(strings.Split(who, ", "), sort)
				if got, err := allowed(b, conn, method); got != want {
					b.Errorf("%s calls %s: allowed %v, want %v: %v", sort, method, got, want, err)
				}
			}
		}
	})
}

func TestAStreamEndsAsSoonAsItsHolderIsKeptOut(t *testing.T) {
	tests := []struct {
		name  string
		do    func(*bench) error
		code  codes.Code
		words string
	}{
		{"banned", func(b *bench) error { return b.members.Ban(b.root(), "fra-1", "too loud") }, codes.PermissionDenied, "banned by controller/controller"},
		{"with a certificate that has expired", func(*bench) error { time.Sleep(24*time.Hour + time.Minute); return nil }, codes.Unauthenticated, "the certificate has expired"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(b *bench) {
				a := b.join("fra-1")
				synctest.Wait()
				if err := tt.do(b); err != nil {
					b.Fatal(err)
				}
				at := time.Now()
				_, err := a.End()
				wantStatus(b, err, tt.code, tt.words)
				if took := time.Since(at); took > 5*time.Second {
					b.Errorf("it took %v", took)
				}
			})
		})
	}
}

func (b *bench) root() identity.Identity {
	return identity.Identity{Fleet: b.members.CA.Fleet(), Kind: identity.Controller, Name: "controller"}
}

func TestWhoIsUnbannedComesBackWithTheSameCertificate(t *testing.T) {
	bubble(t, func(b *bench) {
		conn := b.agent("fra-1")
		a, _ := apitest.Join(b, conn, &synmeshv1.Hello{Name: "fra-1"})
		if err := b.members.Ban(b.root(), "fra-1", "too loud"); err != nil {
			b.Fatal(err)
		}
		if _, err := a.End(); err == nil {
			b.Error("the session goes on")
		}
		if err := b.members.Unban(b.root(), "fra-1"); err != nil {
			b.Fatal(err)
		}
		apitest.Join(b, conn, &synmeshv1.Hello{Name: "fra-1"})
	})
}

func TestAPersonWhoIsRevokedSeesNoMoreOfTheirRun(t *testing.T) {
	bubble(t, func(b *bench) {
		fra := b.join("fra-1")
		stream, err := synmeshv1.NewRunServiceClient(b.as(b.members.User(identity.Operator, 0))).Run(b.Context(), &synmeshv1.RunRequest{Spec: spec(0, "a:1")})
		if err != nil {
			b.Fatal(err)
		}
		run := fra.Recv().GetStartRun().GetRun()
		if err := b.members.RevokeUser(b.root(), "operator", "left"); err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = stream.Recv()
		}
		wantStatus(b, err, codes.PermissionDenied, "revoked by controller/controller")
		if got := fra.Recv().GetCancelRun().GetRun(); got != run {
			b.Errorf("the agent is to cancel %q, want %q", got, run)
		}
	})
}

func TestAnAgentIsWhoseCertificateItHas(t *testing.T) {
	bubble(t, func(b *bench) {
		a := apitest.Open(b, b.agent("fra-1"))
		a.Hello(&synmeshv1.Hello{Name: "nyc-1"})
		_, err := a.End()
		wantStatus(b, err, codes.PermissionDenied, `the hello is of agent "nyc-1", and the certificate of agent/fra-1`)
	})
}

// What was renewed is of no use any more as soon as the agent has shown the new one,
// and who still shows it is told to renew, by which a copy gives itself away.
func TestASessionWithTheNextCertificateRetiresTheOneBefore(t *testing.T) {
	bubble(t, func(b *bench) {
		first := b.members.Agent("fra-1")
		conn := b.as(first)
		apitest.Join(b, conn, &synmeshv1.Hello{Name: "fra-1"})
		next := b.members.Renew(first)
		a, _ := apitest.Join(b, conn, &synmeshv1.Hello{Name: "fra-1"}) // the answer may have been lost
		apitest.Join(b, b.as(next), &synmeshv1.Hello{Name: "fra-1"})
		_, err := a.End()
		wantStatus(b, err, codes.Aborted, "")
		again := apitest.Open(b, conn)
		again.Hello(&synmeshv1.Hello{Name: "fra-1"})
		_, err = again.End()
		wantStatus(b, err, codes.Aborted, "the certificate has been renewed")
	})
}

// Who is banned while a call waits gets no answer with what others have changed because of them.
func TestWhoIsBannedMeanwhileIsGivenNoKeys(t *testing.T) {
	bubble(t, func(b *bench) {
		client := synmeshv1.NewEnrolmentServiceClient(b.agent("fra-1"))
		ended := make(chan error, 1)
		go func() {
			resp, err := client.Follow(b.Context(), &synmeshv1.FollowRequest{Version: "1"})
			if len(resp.GetFiles()) > 0 {
				b.Errorf("it was given %v", resp)
			}
			ended <- err
		}()
		synctest.Wait()
		if err := b.members.Ban(b.root(), "fra-1", "too loud"); err != nil {
			b.Fatal(err)
		}
		close(b.rotated)
		wantStatus(b, <-ended, codes.PermissionDenied, "banned by controller/controller")
	})
}

func TestABanTakesAnAgentOutOfARunAndNobodyElse(t *testing.T) {
	bubble(t, func(b *bench) {
		b.join("fra-1")
		nyc := b.join("nyc-1")
		stream, err := synmeshv1.NewRunServiceClient(b.conn).Run(b.Context(), &synmeshv1.RunRequest{Spec: spec(0, "a:1")})
		if err != nil {
			b.Fatal(err)
		}
		nyc.Recv()
		if err := b.members.Ban(b.root(), "fra-1", "too loud"); err != nil {
			b.Fatal(err)
		}
		var ended *synmeshv1.RunAgentEnded
		for ended == nil {
			m, err := stream.Recv()
			if err != nil {
				b.Fatal(err)
			}
			ended = m.GetAgentEnded()
		}
		if ended.GetAgent() != "fra-1" || !strings.Contains(ended.GetError(), "it was lost") {
			b.Errorf("got %v", ended)
		}
	})
}

// Enrolment is open to everybody, so there is a bound to it; and one to renewals, each of
// which is written down.
func TestWhoAsksTooOftenForCertificatesIsToldToComeAgain(t *testing.T) {
	bubble(t, func(b *bench) {
		stranger := synmeshv1.NewEnrolmentServiceClient(apitest.Connect(b, b.pipe, credentials.NewTLS(identity.PinnedTLS(identity.NewToken(b.members.CA.RootKey()), nil))))
		agent := synmeshv1.NewEnrolmentServiceClient(b.agent("fra-1"))
		for name, ask := range map[string]func() error{
			"enrolments": func() error {
				_, err := stranger.Enroll(b.Context(), &synmeshv1.EnrollRequest{Token: "x", CertificateRequest: []byte("x")})
				return err
			},
			"renewals": func() error {
				_, err := agent.Renew(b.Context(), &synmeshv1.RenewRequest{CertificateRequest: []byte("x")})
				return err
			},
		} {
			var err error
			for range 60 {
				err = ask()
			}
			wantStatus(b, err, codes.ResourceExhausted, name+": ")
			if len(status.Convert(err).Details()) != 1 {
				b.Errorf("%s: it is not told when to come again: %v", name, err)
			}
			time.Sleep(10 * time.Second)
			wantStatus(b, ask(), codes.InvalidArgument, "")
		}
	})
}
