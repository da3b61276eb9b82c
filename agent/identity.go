package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// source is where the agent's certificate comes from: a folder of its state, or
// the files of an own PKI.
type source interface {
	identity.Source
	Changed() <-chan struct{}
}

// membership is the source, and what is to be done about it while the agent runs.
type membership struct {
	source
	folder *identity.Folder // nil with an own PKI
	files  *identity.Files  // nil without one
}

// openMembership finds out who the agent is.
func openMembership(cfg *Config) (*membership, identity.Identity, error) {
	c := &membership{}
	if cfg.TLS.Certificate != "" {
		cfg.TLS.Logger = cfg.Logger
		files, err := identity.OpenFiles(cfg.TLS)
		if err != nil {
			return nil, identity.Identity{}, err
		}
		c.source, c.files = files, files
	} else {
		folder, err := identity.OpenFolder(identityFolder(cfg.StateDir))
		if err != nil {
			return nil, identity.Identity{}, err
		}
		c.source, c.folder = folder, folder
	}
	current, err := c.Current()
	if errors.Is(err, identity.ErrNotEnrolled) {
		err = fmt.Errorf("%s holds no certificate: make a token with `probectl token create --agent NAME`, and give it to `probe-agent enroll`", cfg.StateDir)
	}
	if err == nil && current.Identity.Kind != identity.Agent {
		err = fmt.Errorf("the certificate is that of %v, and this is an agent", current.Identity)
	}
	if err != nil {
		return nil, identity.Identity{}, errors.Join(err, c.close())
	}
	return c, current.Identity, nil
}

func (c *membership) close() error {
	if c.folder == nil {
		return nil
	}
	return c.folder.Close()
}

// How often a renewal is tried that does not succeed: at first after a second,
// and then less and less often.
const (
	firstRenewal = time.Second
	maxRenewal   = time.Minute
	renewWithin  = 20 * time.Second
	// pause is the least between two that succeed.
	pause = time.Second
)

// renew gets the next certificate at half the life of each, or as soon as
// somebody says that there is a newer one than ours: then the state was copied, and
// the controller finds that out by our asking.
func (a *Agent) renew(ctx context.Context) error {
	if a.credentials.files != nil {
		return a.credentials.files.Run(ctx)
	}
	failures := 0
	due, err := a.renewal()
	if err != nil {
		return err
	}
	for {
		wait := time.Until(due)
		if failures > 0 {
			wait = max(wait, rand.N(min(maxRenewal, firstRenewal<<min(failures-1, 10))))
		}
		wait, early := doze(wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-a.suspicion:
			early = false
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
		if early {
			continue
		}
		if err := a.renewOnce(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if failures++; failures == 1 || failures%10 == 0 {
				a.cfg.Logger.Warn("the certificate was not renewed; trying again", "reason", err)
			}
			due = time.Now()
			continue
		}
		failures = 0
		if due, err = a.renewal(); err != nil {
			return err
		}
		// A clock that is a day ahead would have us renew without a pause.
		if soonest := time.Now().Add(pause); due.Before(soonest) {
			due = soonest
		}
		a.cfg.Logger.Info("the certificate was renewed", "next", due)
	}
}

// doze shortens a wait so that a host that sleeps, or whose clock is set, finds
// out within a minute, and tells whether it did: timers know nothing of either.
func doze(wait time.Duration) (_ time.Duration, early bool) {
	return min(wait, maxRenewal), wait > maxRenewal
}

// renewal is when the current certificate should be renewed.
func (a *Agent) renewal() (time.Time, error) {
	current, err := a.credentials.Current()
	if err != nil {
		return time.Time{}, err
	}
	return identity.RenewalOf(current.Leaf()), nil
}

func (a *Agent) renewOnce(ctx context.Context) error {
	key, err := a.credentials.folder.Pending()
	if err != nil {
		return err
	}
	request, err := identity.NewRequest(key)
	if err != nil {
		return err
	}
	return a.ask(ctx, func(ctx context.Context, client synmeshv1.EnrolmentServiceClient) error {
		resp, err := client.Renew(ctx, &synmeshv1.RenewRequest{CertificateRequest: request})
		if err != nil {
			return plain(err)
		}
		return accept(a.credentials.folder, resp.GetCredentials())
	})
}

// ask calls one of the controllers.
func (a *Agent) ask(ctx context.Context, call func(context.Context, synmeshv1.EnrolmentServiceClient) error) error {
	known := a.controllers()
	if len(known) == 0 {
		return errors.New("no controller is known yet")
	}
	address := known[rand.IntN(len(known))]
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(identity.ClientCredentials(a.credentials)))
	if err == nil {
		defer conn.Close()
		ctx, cancel := context.WithTimeout(ctx, renewWithin)
		defer cancel()
		err = call(ctx, synmeshv1.NewEnrolmentServiceClient(conn))
	}
	if err != nil {
		return fmt.Errorf("controller %s: %w", address, err)
	}
	return nil
}

// sessionEnded looks whether a session ended because somebody else has one in our name,
// or a newer certificate.
func (a *Agent) sessionEnded(why error) {
	var from interface{ GRPCStatus() *status.Status }
	if !errors.As(why, &from) || from.GRPCStatus().Code() != codes.Aborted {
		return
	}
	select {
	case a.suspicion <- struct{}{}:
	default:
	}
}

// sessionBegan has the agent announced anew, over the connection of the session: what
// gossip needs may have changed meanwhile.
func (a *Agent) sessionBegan(conn *grpc.ClientConn) {
	for {
		select {
		case a.began <- conn:
			return
		case <-a.began: // of a session that has ended since
		}
	}
}
