package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func (a *app) tokenCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "token create|list|revoke", Short: "Make tokens, with which agents enrol", Args: a.noCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.createTokenCommand(), a.getTokensCommand("list"), a.revokeTokenCommand())
	return c
}

func (a *app) createTokenCommand() *cobra.Command {
	var file string
	ttl := seconds(15 * time.Minute)
	request := &synmeshv1.CreateTokenRequest{}
	c := &cobra.Command{
		Use:   "create --agent NAME",
		Short: "Make a token for one enrolment",
		Long: `create makes a token with which one host can enrol as an agent, once, and by
which it knows this fleet's controllers. Whoever has the token can be that
agent, until it is used or its time is up: hand it over as a secret.`,
		Example: `  probectl token create --agent fra-1 --token-file fra-1.token
  probectl token create --agent fra-1 | ssh fra-1 probe-agent enroll --controller ctl.example:7400 --token-file -`,
		Args: a.noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := identity.CheckName(request.Agent); err != nil {
				return usage(fmt.Errorf("--agent: %w", err))
			}
			request.Ttl = durationpb.New(time.Duration(ttl))
			return a.call(c.Context(), func(ctx context.Context, client synmeshv1.IdentityServiceClient) error {
				resp, err := client.CreateToken(ctx, request)
				if err != nil {
					return err
				}
				t := resp.GetToken()
				fmt.Fprintf(a.err, "token %s lets one host enrol as %s until %s\n", t.GetId(), t.GetAgent(), t.GetExpireTime().AsTime().Format(time.RFC3339))
				if file != "" {
					return identity.WriteFile(file, []byte(resp.GetText()+"\n"))
				}
				_, err = fmt.Fprintln(a.out, resp.GetText())
				return err
			})
		},
	}
	c.Flags().StringVar(&request.Agent, "agent", "", "name of the agent that is to enrol")
	c.Flags().Var(&ttl, "ttl", "how long it can be used, at most 168h")
	c.Flags().StringVar(&file, "token-file", "", "file to write it to, for its owner alone (standard output)")
	return c
}

func (a *app) revokeTokenCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "Make a token useless that has not been used", Args: oneArgument("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.call(c.Context(), func(ctx context.Context, client synmeshv1.IdentityServiceClient) error {
				_, err := client.RevokeToken(ctx, &synmeshv1.RevokeTokenRequest{Id: args[0]})
				if err == nil {
					fmt.Fprintf(a.out, "token/%s revoked\n", args[0])
				}
				return err
			})
		},
	}
}

// tokenView is a token as programs read it.
type tokenView struct {
	ID      string     `json:"id"`
	Agent   string     `json:"agent"`
	State   string     `json:"state"`
	Creator string     `json:"creator"`
	Created *time.Time `json:"create_time"`
	Expires *time.Time `json:"expire_time"`
	Used    *time.Time `json:"use_time,omitempty"`
	Revoked *time.Time `json:"revoke_time,omitempty"`
}

func (a *app) getTokensCommand(word string) *cobra.Command {
	c := &cobra.Command{
		Use: word, Short: "List the tokens", Args: a.noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			var views []tokenView
			err := a.call(c.Context(), func(ctx context.Context, client synmeshv1.IdentityServiceClient) error {
				tokens, err := all(ctx, client.ListTokens,
					func(page string) *synmeshv1.ListTokensRequest {
						return &synmeshv1.ListTokensRequest{PageToken: page}
					},
					(*synmeshv1.ListTokensResponse).GetTokens)
				for _, t := range tokens {
					views = append(views, tokenViewOf(t))
				}
				return err
			})
			if err != nil {
				return err
			}
			return show(a, listing[tokenView]{
				nothing: "no tokens", header: []string{"ID", "AGENT", "STATE", "CREATOR", "AGE", "EXPIRES"},
				row: func(v tokenView) []string {
					return []string{v.ID, v.Agent, v.State, v.Creator, ago(v.Created), day(v.Expires)}
				},
				name: func(v tokenView) string { return v.ID },
			}, views)
		},
	}
	a.outputFlag(c)
	return c
}

func tokenViewOf(t *synmeshv1.Token) tokenView {
	v := tokenView{
		ID: t.GetId(), Agent: t.GetAgent(), Creator: t.GetCreator(), State: "unused",
		Created: instant(t.GetCreateTime()), Expires: instant(t.GetExpireTime()), Used: instant(t.GetUseTime()), Revoked: instant(t.GetRevokeTime()),
	}
	switch {
	case v.Used != nil:
		v.State = "used"
	case v.Revoked != nil:
		v.State = "revoked"
	case v.Expires != nil && time.Now().After(*v.Expires):
		v.State = "expired"
	}
	return v
}

// instant is nil where there was none.
func instant(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	at := t.AsTime()
	return &at
}

// day shows an instant to the second.
func day(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
