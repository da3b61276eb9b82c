package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func checkReason(reason string) error {
	if reason == "" {
		return usage(errors.New("no reason is given; say why with --reason, for the audit log"))
	}
	return nil
}

func (a *app) banCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "ban AGENT --reason WHY", Short: "Keep an agent out, at once", Args: oneArgument("AGENT"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkReason(reason); err != nil {
				return err
			}
			return a.change(c, args[0], "banned", func(ctx context.Context, client synmeshv1.IdentityServiceClient) error {
				_, err := client.BanAgent(ctx, &synmeshv1.BanAgentRequest{Agent: args[0], Reason: reason})
				return err
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why; the agent is told, and it stands in the audit log")
	return c
}

func (a *app) unbanCommand() *cobra.Command {
	return &cobra.Command{
		Use: "unban AGENT", Short: "Let a banned agent in again", Args: oneArgument("AGENT"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.change(c, args[0], "unbanned", func(ctx context.Context, client synmeshv1.IdentityServiceClient) error {
				_, err := client.UnbanAgent(ctx, &synmeshv1.UnbanAgentRequest{Agent: args[0]})
				return err
			})
		},
	}
}

func (a *app) unlockCommand() *cobra.Command {
	return &cobra.Command{
		Use: "unlock AGENT", Short: "Let an agent enrol again whose state was copied",
		Long: `unlock lets an agent enrol again that is locked because two hosts had its state.
All copies stay out until one of them enrols with a new token.`,
		Args: oneArgument("AGENT"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.change(c, args[0], "unlocked", func(ctx context.Context, client synmeshv1.IdentityServiceClient) error {
				_, err := client.UnlockAgent(ctx, &synmeshv1.UnlockAgentRequest{Agent: args[0]})
				return err
			})
		},
	}
}

// change does something to an agent and says so.
func (a *app) change(c *cobra.Command, agent, done string, do func(context.Context, synmeshv1.IdentityServiceClient) error) error {
	if err := a.call(c.Context(), do); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "agent/%s %s\n", agent, done)
	return nil
}

// exclusionView says why somebody is kept out, as programs read it.
type exclusionView struct {
	Time   *time.Time `json:"time"`
	Actor  string     `json:"actor"`
	Reason string     `json:"reason"`
}

func exclusionOf(e *synmeshv1.Exclusion) *exclusionView {
	if e == nil {
		return nil
	}
	return &exclusionView{instant(e.GetTime()), e.GetActor(), e.GetReason()}
}

// String shows it in a table.
func (e *exclusionView) String() string {
	if e == nil {
		return "-"
	}
	return e.Reason
}

// memberView is an agent of the registry as programs read it.
type memberView struct {
	Name       string         `json:"name"`
	State      string         `json:"state"`
	Enrolled   *time.Time     `json:"enrol_time,omitempty"`
	Renewed    *time.Time     `json:"renew_time,omitempty"`
	Expires    *time.Time     `json:"expire_time,omitempty"`
	Generation uint64         `json:"generation"`
	Ban        *exclusionView `json:"ban,omitempty"`
	Lock       *exclusionView `json:"lock,omitempty"`
}

func memberOf(m *synmeshv1.Member) memberView {
	v := memberView{
		Name: m.GetAgent(), State: "enrolled", Generation: m.GetGeneration(), Ban: exclusionOf(m.GetBan()), Lock: exclusionOf(m.GetLock()),
		Enrolled: instant(m.GetEnrolTime()), Renewed: instant(m.GetRenewTime()), Expires: instant(m.GetExpireTime()),
	}
	switch {
	case v.Ban != nil:
		v.State = "banned"
	case v.Lock != nil:
		v.State = "locked"
	case v.Generation == 0:
		v.State = "to enrol"
	case v.Expires != nil && time.Now().After(*v.Expires):
		v.State = "expired"
	}
	return v
}

// why is the reason that counts.
func (v *memberView) why() string {
	if v.Ban != nil {
		return v.Ban.String()
	}
	return v.Lock.String()
}

func (a *app) getMembersCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "members", Aliases: []string{"member"}, Short: "List the agents that were enrolled, connected or not", Args: a.noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			var views []memberView
			err := a.call(c.Context(), func(ctx context.Context, client synmeshv1.IdentityServiceClient) error {
				members, err := all(ctx, client.ListMembers,
					func(page string) *synmeshv1.ListMembersRequest {
						return &synmeshv1.ListMembersRequest{PageToken: page}
					},
					(*synmeshv1.ListMembersResponse).GetMembers)
				for _, m := range members {
					views = append(views, memberOf(m))
				}
				return err
			})
			if err != nil {
				return err
			}
			return show(a, listing[memberView]{
				nothing: "no agent was enrolled", header: []string{"NAME", "STATE", "ENROLLED", "RENEWED", "EXPIRES", "REASON"},
				row: func(v memberView) []string {
					return []string{v.Name, v.State, ago(v.Enrolled), ago(v.Renewed), day(v.Expires), v.why()}
				},
				alarm: func(v memberView) bool { return v.Ban != nil || v.Lock != nil },
				name:  func(v memberView) string { return v.Name },
			}, views)
		},
	}
	a.outputFlag(c)
	return c
}
