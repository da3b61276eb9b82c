package history

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

var (
	// ErrInUse says that another process holds the folder.
	ErrInUse = errors.New("in use by another process")
	// ErrFormat says that a file was written by another version of this program.
	ErrFormat = errors.New("written in another format")
	// ErrInvalid says that the caller's report or cursor cannot be right, now or later.
	ErrInvalid = errors.New("invalid")
	// ErrFull says that the folder has reached Config.MaxSize.
	ErrFull = errors.New("the history is full")
	// ErrClosed says that the store takes no more calls, or, of Append, no more reports.
	ErrClosed = errors.New("store is closed")
)

// Config says where a Store keeps its files and for how long.
type Config struct {
	// Dir is the folder; it is made if it is not there. Required.
	Dir string
	// Retention is how long results are kept after they were stored, rounded up
	// to a whole day. 0: 7 days.
	Retention time.Duration
	// MinuteRetention and HourRetention are the same of what sums them up. 0: 90 days, and 2 years.
	MinuteRetention, HourRetention time.Duration
	// MaxSize is how many bytes of files the folder may have before Append refuses
	// reports; the agents keep them until there is room. 0: the file system says when it is full.
	MaxSize int64
	// Rotation is how long a file of the intake takes reports before it is archived. 0: 5
	// minutes. The longer, the smaller is the archive. A file that has two gigabytes is
	// archived before that.
	Rotation time.Duration
	// Logger gets what an operator should know. nil: nothing is logged.
	Logger *slog.Logger

	now       func() time.Time // nil: time.Now
	maxSize   int              // of one file, in bytes; 0: unlimited
	fileSize  int64            // of one file of the intake, after which there is another; 0: 2 GiB
	lockWait  time.Duration    // 0: 2 s
	noArchive bool             // for tests of the intake alone
}

// Store is a history in a folder. Its methods may be called concurrently.
type Store struct {
	cfg     Config
	log     *slog.Logger
	lock    *bolt
	room    *semaphore.Weighted // bytes that may wait in the queue
	queue   *queue
	rotated chan struct{} // tells the archive that there is a new file
	freed   chan struct{} // tells the committer that there is one less
	readers debt
	stuck   atomic.Bool // archiving has failed, and is tried again now and then
	count   counters

	life struct {
		sync.Mutex
		running, ran, closed bool
	}

	mu      sync.RWMutex
	files   []*file     // of the intake, oldest first; the committer writes to the last, if to any
	archive []*archived // by tier, oldest first
	marks   marks       // durable; only the committer changes them
	closed  bool
	latest  uint64        // stored time up to which all is durable
	changed chan struct{} // closed at the next commit

	// The committer's own.
	last    uint64 // the latest stored time given
	behind  bool   // the clock is behind last
	failing bool   // the last commit failed
	size    int64  // of the folder
	sizedAt time.Time
}

// Open opens the history in a folder, makes the folder if need be, and
// puts away what a crash left behind. It starts nothing. Its errors wrap
// ErrInUse, ErrFormat, or what the operating system said.
func Open(cfg Config) (*Store, error) {
	s, err := newStore(cfg)
	if err != nil {
		return nil, err
	}
	if err := makeDir(cfg.Dir); err != nil {
		return nil, fmt.Errorf("history: make the folder: %w", err)
	}
	if s.lock, err = lockDir(cfg.Dir, s.cfg.lockWait); err != nil {
		return nil, err
	}
	if err := s.recover(); err != nil {
		return nil, errors.Join(err, s.closeFiles())
	}
	return s, nil
}

func newStore(cfg Config) (*Store, error) {
	if cfg.Dir == "" {
		return nil, errors.New("history: no folder given")
	}
	const day = 24 * time.Hour
	for _, d := range []struct {
		what  string
		value *time.Duration
		usual time.Duration
	}{
		{"retention", &cfg.Retention, 7 * day},
		{"retention of minutes", &cfg.MinuteRetention, 90 * day},
		{"retention of hours", &cfg.HourRetention, 2 * 365 * day},
		{"rotation", &cfg.Rotation, 5 * time.Minute},
	} {
		if *d.value < 0 {
			return nil, fmt.Errorf("history: %s of %v: it cannot be negative", d.what, *d.value)
		}
		*d.value = cmp.Or(*d.value, d.usual)
	}
	if cfg.MaxSize < 0 {
		return nil, fmt.Errorf("history: a limit of %d bytes: it cannot be negative", cfg.MaxSize)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	if cfg.fileSize == 0 {
		cfg.fileSize = 2 << 30
	}
	if cfg.lockWait == 0 {
		cfg.lockWait = 2 * time.Second
	}
	return &Store{
		cfg:     cfg,
		log:     cfg.Logger.With("dir", cfg.Dir),
		room:    semaphore.NewWeighted(maxWaiting),
		queue:   newQueue(),
		rotated: make(chan struct{}, 1),
		freed:   make(chan struct{}, 1),
		marks:   marks{},
		changed: make(chan struct{}),
	}, nil
}

// recover opens what is in the folder, and learns the marks and the latest
// stored time from it.
func (s *Store) recover() error {
	names, archive, err := s.tidy()
	if err != nil {
		return err
	}
	if archive, err = s.openArchive(archive); err != nil {
		return err
	}
	if names, err = s.settle(names, archive); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	for _, n := range names {
		f, err := s.openOrSetAside(n)
		if err != nil {
			return err
		}
		if f != nil {
			s.files = append(s.files, f)
		}
	}
	if f := s.newest(); f != nil {
		// A killed process may have left a commit that can be read, but is not
		// on the disk yet.
		if err := syncPath(s.path(f.String())); err != nil {
			return fmt.Errorf("history: sync the newest file: %w", err)
		}
	}
	if err := errors.Join(s.recoverMarks(), s.recoverLast()); err != nil {
		return fmt.Errorf("history: read the marks: %w", err)
	}
	if s.last == 0 {
		s.last = nanoseconds(s.cfg.now()) - 1 // who watches a history of nothing begins now, too
	}
	s.latest = s.last
	return nil
}

// Close releases the folder. Call it when Run has returned; while Run is
// running it does nothing but return an error. Then Append, Scan and Sequence
// return ErrClosed.
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	switch {
	case s.life.running:
		return errors.New("history: Close called before Run has returned")
	case s.life.closed:
		return nil
	}
	s.life.closed = true
	s.queue.close()
	for batch := s.queue.take(maxCommit); batch != nil; batch = s.queue.take(maxCommit) {
		s.finish(batch, ErrClosed)
	}
	return s.closeFiles()
}

func (s *Store) closeFiles() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.close())
	}
	s.files, s.archive = nil, nil
	if err := errors.Join(append(errs, s.lock.close())...); err != nil {
		return fmt.Errorf("history: close: %w", err)
	}
	return nil
}

// newest returns the file that takes the reports, or nil.
func (s *Store) newest() *file {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.files) == 0 {
		return nil
	}
	return s.files[len(s.files)-1]
}
