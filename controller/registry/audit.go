package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

// ErrAudit says that the audit log is not what was written.
var ErrAudit = errors.New("the audit log has been changed")

// maxDetail bounds what an entry of the audit log says, in bytes.
const maxDetail = 1000

// Entry is an entry of the audit log: who did what to whom.
type Entry struct {
	Number  uint64    `json:"-"` // from 1
	Time    time.Time `json:"time"`
	Actor   string    `json:"actor"`   // "user/admin/alice"
	Act     string    `json:"act"`     // "ban agent"
	Subject string    `json:"subject"` // "agent/fra-1"
	Detail  string    `json:"detail,omitempty"`
	// Previous is the hash of the entry before, in hexadecimal; that of the
	// first is zero.
	Previous string `json:"previous"`
	Hash     string `json:"-"`
}

// head is the number and hash of the last entry.
type head struct {
	number uint64
	hash   [sha256.Size]byte
}

// unknown is the actor where nobody is named.
const unknown = "anybody"

// audit adds an entry in the transaction of what it tells of.
func (t *tx) audit(actor identity.Identity, act, subject, detail string) error {
	h, err := t.head()
	if err != nil {
		return err
	}
	if len(detail) > maxDetail {
		detail = detail[:maxDetail]
	}
	who := unknown
	if actor != (identity.Identity{}) {
		who = actor.String()
	}
	value, err := json.Marshal(Entry{
		Time: t.registry.cfg.now().UTC(), Actor: who, Act: act, Subject: subject, Detail: detail,
		Previous: hex.EncodeToString(h.hash[:]),
	})
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	h.number++
	key := numberKey(h.number)
	h.hash = entryHash(key, value)
	if err := t.Bucket(auditBucket).Put(key, value); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	return t.Bucket(metaBucket).Put(headKey, append(key, h.hash[:]...))
}

// Record adds an entry to the log that tells of something outside of the registry. It is
// durable when this returns: call it before the act.
func (r *Registry) Record(actor identity.Identity, act, subject, detail string) error {
	return r.update(func(t *tx) error { return t.audit(actor, act, subject, detail) })
}

func (t *tx) head() (h head, err error) {
	value := t.Bucket(metaBucket).Get(headKey)
	if value == nil {
		return h, nil
	}
	if len(value) != 8+sha256.Size {
		return h, fmt.Errorf("%w: its head has %d bytes", ErrAudit, len(value))
	}
	h.number = binary.BigEndian.Uint64(value)
	copy(h.hash[:], value[8:])
	return h, nil
}

// checkHead tells whether the log ends where it should.
func (t *tx) checkHead() error {
	h, err := t.head()
	if err != nil {
		return err
	}
	last := head{}
	if k, v := t.Bucket(auditBucket).Cursor().Last(); len(k) == 8 {
		last = head{binary.BigEndian.Uint64(k), entryHash(k, v)}
	}
	if h != last {
		return fmt.Errorf("%w: its last entry should be %d, and is %d or another; restore registry.db from a backup", ErrAudit, h.number, last.number)
	}
	return nil
}

// AuditHead returns the number and the hash of the last entry; noted elsewhere,
// they prove all that is before them.
func (r *Registry) AuditHead() (number uint64, hash string, err error) {
	err = r.view(func(t *tx) error {
		h, err := t.head()
		number, hash = h.number, hex.EncodeToString(h.hash[:])
		return err
	})
	return number, hash, err
}

// Audit returns the entries after the one of that number, oldest first; limit
// is 1,000 at most, and that if it is 0.
func (r *Registry) Audit(after uint64, limit int) (entries []Entry, err error) {
	if after == ^uint64(0) {
		return nil, nil
	}
	err = r.view(func(t *tx) error {
		c := t.Bucket(auditBucket).Cursor()
		k, v := c.Seek(numberKey(after + 1))
		for n := bounded(limit); k != nil && n > 0; k, v = c.Next() {
			if len(k) != 8 {
				return fmt.Errorf("%w: an entry after %d has no number", ErrAudit, after)
			}
			e, err := decode[Entry](string(k), v)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrAudit, err)
			}
			hash := entryHash(k, v)
			e.Number, e.Hash = binary.BigEndian.Uint64(k), hex.EncodeToString(hash[:])
			entries = append(entries, *e)
			n--
		}
		return nil
	})
	return entries, err
}

// VerifyAudit reads the whole log and tells whether it is what was written.
func (r *Registry) VerifyAudit(ctx context.Context) error {
	number, hash, err := r.AuditHead()
	if err != nil {
		return err
	}
	before := Entry{Hash: hex.EncodeToString(make([]byte, sha256.Size))}
	for before.Number < number {
		if err := ctx.Err(); err != nil {
			return err
		}
		entries, err := r.Audit(before.Number, maxPage)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			if e.Number != before.Number+1 {
				return fmt.Errorf("%w: entry %d is missing", ErrAudit, before.Number+1)
			}
			if e.Previous != before.Hash {
				return fmt.Errorf("%w: entry %d is not what entry %d was written after", ErrAudit, before.Number, e.Number)
			}
			if before = e; e.Number == number {
				break
			}
		}
	}
	if before.Number != number || before.Hash != hash {
		return fmt.Errorf("%w: entry %d is not the last one that was written", ErrAudit, before.Number)
	}
	return nil
}

func numberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func entryHash(key, value []byte) [sha256.Size]byte {
	return sha256.Sum256(bytes.Join([][]byte{key, value}, nil))
}
