package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
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
	var role, file, folder string
	ttl := seconds(90 * 24 * time.Hour)
	c := &cobra.Command{
		Use:   "create NAME --role viewer|operator|admin [--file FILE] [--pem FOLDER]",
		Short: "Make a context file for a person, or PEM files for a program",
		Long: `create makes a key, has the controller certify it, and writes a context file for
a person. A viewer may read, an operator may measure, too, and an admin may say
who belongs to the fleet. The key is in the file and nowhere else: hand it over
as a secret.

For other programs, such as curl or a client of your own, --pem writes ` + certificatePEM + `
(with those that it leads over), ` + keyPEM + ` and ` + rootsPEM + ` to a folder, and replaces
what had these names there. With --file as well it is the same person in both.`,
		Example: `  probectl user create alice --role operator --file alice.yaml
  probectl user create dashboard --role viewer --pem ./dashboard`,
		Args: oneArgument("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			asked, err := identity.ParseRole(role)
			if err != nil {
				return usage(fmt.Errorf("--role: %w", err))
			}
			if err := identity.CheckName(args[0]); err != nil {
				return usage(err)
			}
			if folder != "" { // before there is a certificate that cannot be written
				if err := identity.MakeFolder(folder); err != nil {
					return usage(fmt.Errorf("--pem: %w", err))
				}
			}
			state, err := a.createUser(c.Context(), args[0], asked, time.Duration(ttl))
			if err != nil {
				return err
			}
			if file == "" && folder == "" {
				text, err := a.contextOf(state)
				if err != nil {
					return err
				}
				_, err = a.out.Write(text)
				return err
			}
			if err := a.saveUser(state, file, folder); err != nil {
				return err
			}
			where := slices.DeleteFunc([]string{file, folder}, func(name string) bool { return name == "" })
			fmt.Fprintf(a.out, "user/%s created: %s\n", args[0], strings.Join(where, ", "))
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&role, "role", "", "viewer, operator or admin")
	f.Var(&ttl, "ttl", "how long the certificate lasts, at most 8760h")
	f.StringVar(&file, "file", "", "context file to write, for its owner alone (standard output, unless there is --pem)")
	f.StringVar(&folder, "pem", "", "folder to write the parts to as PEM, for its owner alone")
	return c
}

// What --pem writes; in a context file the same stand as certificate, key and roots.
const (
	certificatePEM = "certificate.pem"
	keyPEM         = "key.pem"
	rootsPEM       = "roots.pem"
)

// contextOf returns the context file of a user.
func (a *app) contextOf(s *identity.State) ([]byte, error) {
	return contexts.Context{Controller: a.controller, State: s}.Encode()
}

// saveUser writes who somebody is, to each of the two that is named.
func (a *app) saveUser(s *identity.State, file, folder string) error {
	if file != "" {
		text, err := a.contextOf(s)
		if err != nil {
			return err
		}
		if err := identity.WriteFile(file, text); err != nil {
			return err
		}
	}
	if folder != "" {
		return writePEM(folder, s)
	}
	return nil
}

// writePEM writes who somebody is to a folder. Where it is cut off, the files do not fit together,
// and nobody takes them.
func writePEM(dir string, s *identity.State) error {
	key, err := identity.EncodeKey(s.Key)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{{keyPEM, key}, {certificatePEM, identity.EncodeCertificates(s.Chain...)}, {rootsPEM, identity.EncodeCertificates(s.Roots...)}} {
		if err := identity.WriteFile(filepath.Join(dir, f.name), f.content); err != nil {
			return err
		}
	}
	return nil
}

// createUser makes a user, and returns who that is.
func (a *app) createUser(ctx context.Context, name string, role identity.Role, ttl time.Duration) (_ *identity.State, err error) {
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
	return state, state.Accept(issued)
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
