package agent

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

const (
	// followWithin bounds one question for other keys; a controller answers after two minutes at most.
	followWithin = 5 * time.Minute
	// followAgain is how long it takes at most until one is asked again that failed.
	followAgain = 5 * time.Second
)

// follow takes over other keys of the gossip as the controller hands them out, until a
// session begins, or due. By asking again it confirms that it uses what it was given.
func (a *Agent) follow(ctx context.Context, due time.Time) {
	version := ""
	for ctx.Err() == nil {
		left := time.Until(due)
		if left <= 0 {
			return
		}
		if a.conn == nil {
			if a.pause(ctx, min(left, maxRenewal)) {
				return
			}
			continue
		}
		next, err := a.followOnce(ctx, version, min(left, followWithin))
		if err == nil {
			version = next
			continue
		}
		if a.dropConn(); a.conn != nil && a.pause(ctx, rand.N(followAgain)) {
			return
		}
	}
}

// dropConn forgets the connection of a session that has ended.
func (a *Agent) dropConn() {
	if a.conn != nil && a.conn.GetState() == connectivity.Shutdown {
		a.conn = nil
	}
}

func (a *Agent) followOnce(ctx context.Context, version string, within time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	resp, err := synmeshv1.NewEnrolmentServiceClient(a.conn).Follow(ctx, &synmeshv1.FollowRequest{Version: version})
	if err != nil {
		return version, err
	}
	if secrets := resp.GetFiles()[gossip.SecretsFile]; len(secrets) > 0 {
		if err := a.take(told{Secrets: secrets, Announcement: a.told.Announcement}); err != nil {
			a.cfg.Logger.Warn("the keys of the gossip cannot be changed", "reason", err)
			return version, err
		}
	}
	return resp.GetVersion(), nil
}
