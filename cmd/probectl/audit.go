package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// entryView is an entry of the audit log as programs read it.
type entryView struct {
	Number   uint64     `json:"number"`
	Time     *time.Time `json:"time"`
	Actor    string     `json:"actor"`
	Act      string     `json:"act"`
	Subject  string     `json:"subject"`
	Detail   string     `json:"detail,omitempty"`
	Previous string     `json:"previous"`
	Hash     string     `json:"hash"`
}

func (a *app) getAuditCommand() *cobra.Command {
	var after uint64
	c := &cobra.Command{
		Use: "audit", Short: "List who changed what, oldest first", Args: a.noArguments,
		Long: `audit lists who changed what, oldest first. Each entry has the hash of the one
before: the hash of the last one, noted elsewhere, proves all before it.`,
		RunE: func(c *cobra.Command, _ []string) error {
			var views []entryView
			err := a.call(c.Context(), func(ctx context.Context, client synmeshv1.IdentityServiceClient) error {
				entries, err := all(ctx, client.ListAuditEntries,
					func(page string) *synmeshv1.ListAuditEntriesRequest {
						if page == "" && after > 0 {
							page = fmt.Sprint(after)
						}
						return &synmeshv1.ListAuditEntriesRequest{PageToken: page}
					},
					(*synmeshv1.ListAuditEntriesResponse).GetEntries)
				for _, e := range entries {
					views = append(views, entryView{e.GetNumber(), instant(e.GetTime()), e.GetActor(), e.GetAct(), e.GetSubject(), e.GetDetail(), e.GetPrevious(), e.GetHash()})
				}
				return err
			})
			if err != nil {
				return err
			}
			return show(a, listing[entryView]{
				nothing: "no entries", header: []string{"NUMBER", "TIME", "ACTOR", "ACT", "SUBJECT", "DETAIL"},
				row: func(v entryView) []string {
					return []string{fmt.Sprint(v.Number), day(v.Time), v.Actor, v.Act, v.Subject, v.Detail}
				},
				name: func(v entryView) string { return fmt.Sprint(v.Number) },
			}, views)
		},
	}
	c.Flags().Uint64Var(&after, "after", 0, "number of the entry to begin after")
	a.outputFlag(c)
	return c
}

func (a *app) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Say whom the controller takes you for", Args: a.noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.call(c.Context(), func(ctx context.Context, client synmeshv1.IdentityServiceClient) error {
				me, err := client.WhoAmI(ctx, &synmeshv1.WhoAmIRequest{})
				if err == nil {
					fmt.Fprintf(a.out, "%s until %s\n", me.GetUri(), me.GetExpireTime().AsTime().Format(time.RFC3339))
				}
				return err
			})
		},
	}
}
