package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/identity/contexts"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func (a *app) userCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "user create|list|revoke", Short: "Say which people may do what", Args: a.noCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.createUserCommand(), a.getUsersCommand("list"), a.revokeUserCommand())
	return c
}

func (a *app) createUserCommand() *cobra.Command {
	var role, file string
	ttl := seconds(90 * 24 * time.Hour)
	c := &cobra.Command{
		Use:   "create NAME --role viewer|operator|admin --file FILE",
		Short: "Make a context file for a person",
		Long: `create makes a key, has the controller certify it, and writes a context file for
a person. A viewer may read, an operator may measure, too, and an admin may say
who belongs to the fleet. The key is in the file and nowhere else: hand it over
as a secret.`,
		Example: "  probectl user create alice --role operator --file alice.yaml",
		Args:    oneArgument("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			asked, err := identity.ParseRole(role)
			if err != nil {
				return usage(fmt.Errorf("--role: %w", err))
			}
			if err := identity.CheckName(args[0]); err != nil {
				return usage(err)
			}
			text, err := a.createUser(c.Context(), args[0], asked, time.Duration(ttl))
			if err != nil {
				return err
			}
			if file == "" {
				_, err = a.out.Write(text)
				return err
			}
			if err := identity.WriteFile(file, text); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "user/%s created: %s\n", args[0], file)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&role, "role", "", "viewer, operator or admin")
	f.Var(&ttl, "ttl", "how long the certificate lasts, at most 8760h")
	f.StringVar(&file, "file", "", "file to write, for its owner alone (standard output)")
	return c
}

// createUser returns the context file of a new user.
func (a *app) createUser(ctx context.Context, name string, role identity.Role, ttl time.Duration) (text []byte, err error) {
	state := &identity.State{}
	if state.Pending, err = identity.NewKey(); err != nil {
		return nil, err
	}
	request := &synmeshv1.CreateUserRequest{Name: name, Role: synmeshv1.Role(role), Ttl: durationpb.New(ttl)}
	if request.CertificateRequest, err = identity.NewRequest(state.Pending); err != nil {
		return nil, err
	}
	var resp *synmeshv1.CreateUserResponse
	err = a.call(ctx, func(ctx context.Context, client synmeshv1.IdentityServiceClient) (err error) {
		resp, err = client.CreateUser(ctx, request)
		return err
	})
	if err != nil {
		return nil, err
	}
	issued := identity.Issued{Generation: resp.GetCredentials().GetGeneration()}
	if issued.Chain, err = identity.ParseChain(resp.GetCredentials().GetChain()); err != nil {
		return nil, err
	}
	if issued.Roots, err = identity.ParseChain(resp.GetCredentials().GetRoots()); err != nil {
		return nil, err
	}
	if err := state.Accept(issued); err != nil {
		return nil, err
	}
	return contexts.Context{Controller: a.controller, State: state}.Encode()
}

func (a *app) revokeUserCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "revoke NAME --reason WHY", Short: "Keep a person out, at once", Args: oneArgument("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkReason(reason); err != nil {
				return err
			}
			return a.call(c.Context(), func(ctx context.Context, client synmeshv1.IdentityServiceClient) error {
				_, err := client.RevokeUser(ctx, &synmeshv1.RevokeUserRequest{Name: args[0], Reason: reason})
				if err == nil {
					fmt.Fprintf(a.out, "user/%s revoked\n", args[0])
				}
				return err
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why; it stands in the audit log")
	return c
}

// userView is a person as programs read it.
type userView struct {
	Name    string         `json:"name"`
	Role    string         `json:"role"`
	Creator string         `json:"creator"`
	Created *time.Time     `json:"create_time,omitempty"`
	Expires *time.Time     `json:"expire_time,omitempty"`
	Revoked *exclusionView `json:"revocation,omitempty"`
}

func (a *app) getUsersCommand(word string) *cobra.Command {
	c := &cobra.Command{
		Use: word, Short: "List the people", Args: a.noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			var views []userView
			err := a.call(c.Context(), func(ctx context.Context, client synmeshv1.IdentityServiceClient) error {
				users, err := all(ctx, client.ListUsers,
					func(page string) *synmeshv1.ListUsersRequest {
						return &synmeshv1.ListUsersRequest{PageToken: page}
					},
					(*synmeshv1.ListUsersResponse).GetUsers)
				for _, u := range users {
					views = append(views, userView{
						Name: u.GetName(), Role: identity.Role(u.GetRole()).String(), Creator: u.GetCreator(),
						Created: instant(u.GetCreateTime()), Expires: instant(u.GetExpireTime()), Revoked: exclusionOf(u.GetRevocation()),
					})
				}
				return err
			})
			if err != nil {
				return err
			}
			return show(a, listing[userView]{
				nothing: "no users", header: []string{"NAME", "ROLE", "CREATOR", "AGE", "EXPIRES", "REVOKED"},
				row: func(v userView) []string {
					return []string{v.Name, v.Role, v.Creator, ago(v.Created), day(v.Expires), v.Revoked.String()}
				},
				alarm: func(v userView) bool { return v.Revoked != nil },
				name:  func(v userView) string { return v.Name },
			}, views)
		},
	}
	a.outputFlag(c)
	return c
}
