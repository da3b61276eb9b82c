package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// call connects to the controller and asks it something about identities.
func (a *app) call(ctx context.Context, ask func(context.Context, synmeshv1.IdentityServiceClient) error) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := ask(ctx, synmeshv1.NewIdentityServiceClient(conn)); err != nil {
		return a.failed(ctx, err)
	}
	return nil
}

// all reads page after page.
func all[Req any, Resp interface{ GetNextPageToken() string }, T any](
	ctx context.Context, read func(context.Context, Req, ...grpc.CallOption) (Resp, error),
	request func(page string) Req, items func(Resp) []T,
) (found []T, err error) {
	for page := ""; ; {
		resp, err := read(ctx, request(page))
		if err != nil {
			return nil, err
		}
		found = append(found, items(resp)...)
		if page = resp.GetNextPageToken(); page == "" {
			return found, nil
		}
	}
}

// listing is what a list shows of each entry.
type listing[V any] struct {
	nothing string   // what is said if there is none
	header  []string // of the table
	row     func(V) []string
	alarm   func(V) bool
	name    func(V) string
}

// show prints a list in the form that was asked for.
func show[V any](a *app, l listing[V], views []V) error {
	if views == nil {
		views = []V{}
	}
	switch a.output {
	case asJSON, asYAML:
		return printValue(a.out, a.output, views)
	case asJSONL:
		return printLines(a.out, views)
	case asName:
		for _, v := range views {
			fmt.Fprintln(a.out, l.name(v))
		}
		return nil
	}
	t := &table{left: len(l.header), header: l.header, alarm: make(map[int]bool)}
	for i, v := range views {
		t.rows = append(t.rows, l.row(v))
		t.alarm[i] = l.alarm != nil && l.alarm(v)
	}
	if a.output == asCSV {
		return printCSV(a.out, t)
	}
	if len(views) == 0 {
		fmt.Fprintln(a.err, l.nothing)
		return nil
	}
	return print(a.out, t)
}

// oneArgument wants one argument, and says what for.
func oneArgument(what string) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage(fmt.Errorf("one %s is wanted, as in %s; %d are given", what, c.UseLine(), len(args)))
		}
		return nil
	}
}
