package storage

import (
	"math"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// space decides whether the disk has room for writes. A full disk must never be
// met: the engine then retries its flushes for ever while the writers hang, and
// an error of its log is the end of the store.
//
// The disk is asked once a second. In between, writes draw on a budget, so that
// a burst cannot fill it before anybody has looked.
type space struct {
	budget    atomic.Int64 // bytes that may still be written before the next look
	reserve   atomic.Int64 // bytes that may be written on top by what only removes rows
	low       atomic.Bool  // writes are refused, as of the last look
	memTables atomic.Int64 // size of the engine's memtables, as of the last second
}

const (
	// rowCopies is how often a row is written before the first of its copies is
	// removed: to the log, to its place, to a table, and once more to another.
	rowCopies = 4
	// logFileShare is what the engine allocates for its next log file, in tenths
	// of a memtable.
	logFileShare = 11
	// smallDiskShare is the part of a small disk that a memtable may have.
	smallDiskShare     = 16
	maxMemTable        = 32 << 20
	minMemTableDefault = 1 << 20
	// spaceRelease: writes are admitted again when an eighth more than the limit
	// is free, so that the state does not flap.
	spaceRelease = 8
	// removeShare is the part of what is to stay free that removals may use: even to
	// remove a row takes a record in the log.
	removeShare = 2
)

// take draws on the budget, or reports that the write must be refused.
func (p *space) take(size int) bool {
	return !p.low.Load() && p.budget.Add(-rowCopies*int64(size)) >= 0
}

// takeReserve draws on what is kept for writes that only remove rows.
func (p *space) takeReserve(size int) bool {
	return p.reserve.Add(-rowCopies*int64(size)) >= 0
}

// unknown sets the state where nobody can tell what is free.
func (p *space) unknown() {
	p.budget.Store(math.MaxInt64)
	p.reserve.Store(math.MaxInt64)
}

// look sets the state by what is free, what must be kept free, and how much of that
// removals may use.
func (p *space) look(free, limit, reserve int64) (low, changed bool) {
	was := p.low.Load()
	low = free < limit || was && free < limit+limit/spaceRelease
	p.low.Store(low)
	p.budget.Store(free - limit)
	p.reserve.Store(free - max(limit-reserve, 0))
	return low, low != was
}

// keepFree is how much of the disk must stay free: what is configured, and what
// has been accepted and not yet been written as often as it will be.
func (s *Store) keepFree(disk vfs.DiskUsage) int64 {
	return s.minFree(disk) + (rowCopies-2)*int64(s.overlay.bytes()) + s.space.memTables.Load() + logFileShare*s.cfg.MemTableBytes/10
}

// minFree is how much of the disk the configuration wants to stay free.
func (s *Store) minFree(disk vfs.DiskUsage) int64 {
	if p := s.cfg.MinFreePercent; p > 0 {
		return int64(disk.TotalBytes / 100 * uint64(p))
	}
	return s.cfg.MinFreeBytes
}

// defaultMemTable is the size of a memtable by default: small on a small disk,
// where its logs and tables would leave no room for anything else.
func (c Config) defaultMemTable() int64 {
	fs := vfs.Default
	if c.FS != nil {
		fs = c.FS
	}
	usage, err := fs.GetDiskUsage(c.Dir)
	if err != nil {
		usage, err = fs.GetDiskUsage(fs.PathDir(c.Dir)) // it is still to be made
	}
	if err != nil || usage.TotalBytes == 0 || usage.TotalBytes/smallDiskShare > maxMemTable {
		return maxMemTable
	}
	return max(int64(usage.TotalBytes/smallDiskShare), minMemTableDefault)
}

// checkDisk refuses or admits writes by the free space of the disk.
func (s *Store) checkDisk() {
	if s.cfg.MinFreeBytes < 0 && s.cfg.MinFreePercent == 0 {
		s.space.unknown()
		return
	}
	usage, err := s.fs().GetDiskUsage(s.cfg.Dir)
	if err != nil {
		// Not every file system can tell; the engine's stall remains.
		s.space.unknown()
		return
	}
	s.meters.freeBytes.Set(float64(usage.AvailBytes))
	limit := s.keepFree(usage)
	low, changed := s.space.look(int64(min(usage.AvailBytes, math.MaxInt64)), limit, s.minFree(usage)/removeShare)
	if changed {
		s.cfg.Logger.Warn("storage: free space changed sides of the limit",
			"writes_refused", low, "free_bytes", usage.AvailBytes, "limit_bytes", limit)
	}
}

// DiskFull reports that writes are refused because the disk is almost full.
func (s *Store) DiskFull() bool { return s.space.low.Load() || s.space.budget.Load() < 0 }
