package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/replica/cork"
)

// Fsync says when a commit is synced to the disk.
type Fsync uint8

const (
	// FsyncAlways syncs a batch that holds a durable write.
	FsyncAlways Fsync = iota
	// FsyncInterval syncs on a timer only. A crash of the machine loses what
	// was acknowledged within the last interval; a crash of the process loses
	// nothing that had reached the operating system.
	FsyncInterval
	// FsyncOne syncs like FsyncAlways; the caller marks only the coordinator's
	// own copy as durable. The timer syncs the others.
	FsyncOne
)

// String returns the name of the mode as it is written in flags.
func (f Fsync) String() string {
	switch f {
	case FsyncAlways:
		return "always"
	case FsyncInterval:
		return "interval"
	case FsyncOne:
		return "one"
	}
	return fmt.Sprintf("fsync(%d)", uint8(f))
}

// Config is what a Store needs. The zero value of each field means the default
// that is written beside it; Dir has none.
type Config struct {
	// FS is the file system. Default: the one of the operating system, watched
	// for slow operations.
	FS vfs.FS
	// Dir is the directory that holds the store and nothing else.
	Dir string

	// Fsync is when commits are synced. Default: FsyncAlways.
	Fsync Fsync
	// FsyncInterval is the period of the timer in the modes that have one.
	// Default: 1 s.
	FsyncInterval time.Duration

	// MemTableBytes is the size of one memtable; up to four exist at a time.
	// A simulated disk copies whole files at each sync and wants at most 1 MiB.
	// Default: 32 MiB, on a disk of less than 512 MiB a 16th of it.
	MemTableBytes int64
	// PendingBytes is how much is logged before its rows are applied. Meanwhile
	// it lies in memory, and once more in the memtable, which must be larger or
	// the log is written out to tables. At twice as much, commits wait and
	// writes are refused with ErrBusy as in a stall of the engine. Opening reads
	// up to as much. Default: three quarters of MemTableBytes.
	PendingBytes int
	// LogAge is for how long something may be in the log of the engine and in no
	// table. A log whose bits turn takes back no more than that. Default: 6 h.
	LogAge time.Duration
	// PendingAge is after how long rows are applied though they are few; an
	// idle store holds none for longer than twice this. Default: 10 s.
	PendingAge time.Duration
	// BlockCacheBytes bounds the cache of uncompressed blocks. Default: 64 MiB.
	BlockCacheBytes int64
	// QueueBytes bounds what is queued and not yet committed; beyond it writes
	// are refused with ErrBusy. Default: 32 MiB.
	QueueBytes int
	// StallGrace is how long the engine may stop taking writes before new ones
	// are refused with ErrBusy instead of queued. Default: 250 ms.
	StallGrace time.Duration
	// MinFreeBytes is the free space below which writes are refused with
	// ErrDiskFull; what has been accepted and is still to be written a second and
	// third time is kept free on top of it. Negative switches the check off.
	// Default: 256 MiB.
	// Half of it is left to writes that only remove rows.
	MinFreeBytes int64
	// MinFreePercent, if not 0, is the same in percent of the disk, and replaces
	// MinFreeBytes.
	MinFreePercent int

	// StallLimit is how long one operation of the log may take. A disk that
	// stands still for longer ends the store: see ErrStalled. Negative switches
	// the check off. Default: 30 s.
	StallLimit time.Duration

	// Fatal is told, once, of the error after which the engine can no longer
	// keep its promises; the process should end. It may be called from any
	// goroutine and with locks of the engine held: it must not block and must
	// not call the Store. Default: nothing, the Store only answers ErrFailed.
	Fatal func(error)

	// Cork holds back what the callbacks of one commit send. Default: nothing is.
	Cork *cork.Cork

	// Logger receives state changes. Default: discarded.
	Logger *slog.Logger
	// Metrics receives the counters. Default: a private set.
	Metrics *metrics.Set
}

// minMemTableBytes keeps a memtable large enough for the largest row that the
// doors let through to be queued beside others.
const minMemTableBytes = 64 << 10

// fs returns the file system to ask about the disk.
func (s *Store) fs() vfs.FS {
	if s.cfg.FS == nil {
		return vfs.Default
	}
	return s.cfg.FS
}

// withDefaults returns c with every zero field set to its default.
func (c Config) withDefaults() Config {
	if c.FsyncInterval == 0 {
		c.FsyncInterval = time.Second
	}
	if c.MemTableBytes == 0 {
		c.MemTableBytes = c.defaultMemTable()
	}
	if c.PendingBytes == 0 {
		c.PendingBytes = int(c.MemTableBytes / 4 * 3)
	}
	if c.LogAge == 0 {
		c.LogAge = 6 * time.Hour
	}
	if c.PendingAge == 0 {
		c.PendingAge = 10 * time.Second
	}
	if c.BlockCacheBytes == 0 {
		c.BlockCacheBytes = 64 << 20
	}
	if c.QueueBytes == 0 {
		c.QueueBytes = 32 << 20
	}
	if c.StallGrace == 0 {
		c.StallGrace = 250 * time.Millisecond
	}
	if c.MinFreeBytes == 0 {
		c.MinFreeBytes = 256 << 20
	}
	if c.StallLimit == 0 {
		c.StallLimit = 30 * time.Second
	}
	if c.Fatal == nil {
		c.Fatal = func(error) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewSet()
	}
	return c
}

// validate reports every fault of c at once. Requires: withDefaults ran.
func (c Config) validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("dir must be given"))
	}
	if c.Fsync > FsyncOne {
		errs = append(errs, fmt.Errorf("fsync (%d) is no known mode", c.Fsync))
	}
	if c.FsyncInterval < 0 {
		errs = append(errs, fmt.Errorf("fsync interval (%v) must be positive", c.FsyncInterval))
	}
	if c.MemTableBytes < minMemTableBytes {
		errs = append(errs, fmt.Errorf("memtable bytes (%d) must be at least %d", c.MemTableBytes, minMemTableBytes))
	}
	if c.PendingBytes < 0 {
		errs = append(errs, fmt.Errorf("pending bytes (%d) must be positive", c.PendingBytes))
	}
	if c.PendingAge < 0 {
		errs = append(errs, fmt.Errorf("pending age (%v) must be positive", c.PendingAge))
	}
	if c.BlockCacheBytes < 0 {
		errs = append(errs, fmt.Errorf("block cache bytes (%d) must be positive", c.BlockCacheBytes))
	}
	if c.QueueBytes < 0 {
		errs = append(errs, fmt.Errorf("queue bytes (%d) must be positive", c.QueueBytes))
	}
	if c.MinFreePercent < 0 || c.MinFreePercent > 99 {
		errs = append(errs, fmt.Errorf("min free percent (%d) must be in 0..99", c.MinFreePercent))
	}
	if c.StallGrace < 0 {
		errs = append(errs, fmt.Errorf("stall grace (%v) must be positive", c.StallGrace))
	}
	return errors.Join(errs...)
}
