package web

import (
	"net/url"
	"strings"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Whatever the query string is, only what names a field is taken.
func FuzzQueryString(f *testing.F) {
	for _, query := range []string{
		"pageSize=7", "page_size=7", "filter.targetAgents=dc%3Dfra&quantiles=0.5&quantiles=0.99&step=60s", "startTime=2026-11-21T00:00:00Z",
		"filter=x", "filter.targets.x=1", "filter..agents=1", ".=1", "=1", "quantiles=NaN", "byFlow=maybe", "filter[targets]=1", "[x]=1", "step[seconds]=1",
	} {
		f.Add(query)
	}
	fields := map[string]bool{}
	for name := range strings.FieldsSeq("filter startTime start_time endTime end_time step quantiles byFlow by_flow pageSize page_size pageToken page_token") {
		fields[name] = true
	}
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		m := &synmeshv1.QueryRequest{}
		if err := (strict{}).Parse(m, values, utilities.NewDoubleArray(nil)); err != nil {
			return
		}
		for name := range values {
			if first, _, _ := strings.Cut(name, "."); !fields[first] {
				t.Errorf("%q is taken: %v", name, m)
			}
		}
		if _, err := proto.Marshal(m); err != nil {
			t.Error(err)
		}
	})
}
