package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// reach remembers, beside the engine, the last batch that was synced, so that
// an open can tell whether the directory still holds it.
//
// The engine cannot tell. A log that ends early looks to it like a log that was
// being written when the power went, and so does one with a flipped bit in its
// last record: both open in silence, without what had been acknowledged. Taking
// every unclean stop for such a loss would be safe, and would punish the wrong
// case: a killed process loses nothing, yet its node would not count in reads
// until it had been compared with all others, and a cluster killed as a whole
// would answer nothing at all. So the loss itself is looked for.
//
// The note is written after each sync of the log and before the callbacks, by
// the one goroutine that commits, and costs a write to the page cache. It is
// itself synced at most each reachInterval. Therefore
//
//   - after the end of the process, however it came, the note is exact: every
//     batch that was acknowledged as durable and is missing is missed;
//   - after the end of the machine it may be behind by reachInterval. Honest
//     disks lose nothing then; one that lied about a sync is found out unless
//     all it lost is younger.
//
// Invariant: the note is never ahead of the log.
//
// The file REACH has two places, in different pages, written in turn; a torn or
// damaged one costs one note. Each is
//
//	1    version = 1
//	8    number of the last batch with rows that is durable, big-endian
//	4    CRC32C of the above, little-endian
//
// In the page behind them stands whether the node has company, see
// [Store.NoteCompany]:
//
//	1    version = 1
//	1    1 if it has, else 0
//	4    CRC32C of the above, little-endian
type reach struct {
	file   vfs.File
	place  int64  // written next, 0 or 1
	logged uint64 // last batch with rows; only they leave a trace in the log

	fresh atomic.Bool // batches with rows have come since the log was last turned
	alone atomic.Bool // the page says that the node has no company

	noted  atomic.Uint64
	synced atomic.Uint64 // what the note said when it was last synced
}

const (
	reachName    = "REACH"
	reachVersion = 1
	reachBytes   = 1 + 8 + 4
	reachPage    = 4096
	companyPlace = 2 // in pages
	companyBytes = 1 + 1 + 4
	// reachRow is the meta row that says that there is a note.
	reachRow = "reach"
)

const (
	// reachInterval is how often the note is synced while there is news.
	reachInterval = 500 * time.Millisecond
	// idleSync is how often the log of an idle store is synced all the same, so
	// that a disk which stands still is noticed.
	idleSync = 5 * time.Second
)

func appendReach(dst []byte, seq uint64) []byte {
	at := len(dst)
	dst = binary.BigEndian.AppendUint64(append(dst, reachVersion), seq)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

func decodeReach(b []byte) (seq uint64, ok bool) {
	if len(b) != reachBytes || b[0] != reachVersion {
		return 0, false
	}
	body, sum := b[:reachBytes-4], binary.LittleEndian.Uint32(b[reachBytes-4:])
	return binary.BigEndian.Uint64(b[1:]), crc32.Checksum(body, castagnoli) == sum
}

// openReach compares the note with last, the last batch that the log has, and
// returns the number to go on from. What the log lacks makes the store lost. So
// does a note that is gone or unreadable, since nobody can say what it said.
func (s *Store) openReach(last uint64) (uint64, error) {
	expected, err := s.reachExpected()
	if err != nil {
		return 0, err
	}
	noted, found, err := s.readReach()
	if err != nil {
		return 0, err
	}
	switch {
	case found && noted > last:
		s.lost = fmt.Errorf("%w: batches up to %d were durable, the log ends with %d", ErrLost, noted, last)
	case !found && expected:
		s.lost = fmt.Errorf("%w: the note of how far the log was durable is missing or damaged", ErrLost)
	}
	if err := s.readCompany(!expected && !found); err != nil {
		return 0, err
	}
	if s.lost != nil {
		s.cfg.Logger.Error("storage: opened without what was acknowledged", "err", s.lost)
		last = max(last, noted)
	}
	if err := s.createReach(last, expected); err != nil {
		return 0, fmt.Errorf("reach: %w", err)
	}
	return last, nil
}

// reachExpected reports whether an earlier open has left a note.
func (s *Store) reachExpected() (bool, error) {
	_, closer, err := s.db.Get(metaKey(reachRow))
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, readError(err)
	}
	return true, closer.Close()
}

// readReach returns the greatest number of the two places.
func (s *Store) readReach() (noted uint64, found bool, err error) {
	name := s.fs().PathJoin(s.cfg.Dir, reachName)
	f, err := s.fs().Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("reach: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	for place := range int64(2) {
		var b [reachBytes]byte
		if n, err := f.ReadAt(b[:], place*reachPage); n < len(b) {
			if err != nil && !errors.Is(err, io.EOF) {
				return 0, false, fmt.Errorf("reach: read: %w", err)
			}
			continue
		}
		if seq, ok := decodeReach(b[:]); ok {
			noted, found = max(noted, seq), true
		}
	}
	return noted, found, nil
}

// createReach writes the note anew in both places, durably.
func (s *Store) createReach(last uint64, expected bool) error {
	name := s.fs().PathJoin(s.cfg.Dir, reachName)
	f, err := s.fs().OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	r := &s.reach
	r.file, r.logged = f, last
	for range 2 {
		if err := r.write(last); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if r.alone.Load() {
		if err := r.writeCompany(false); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	err = f.Sync()
	if dir, dirErr := s.fs().OpenDir(s.cfg.Dir); dirErr != nil {
		err = errors.Join(err, dirErr)
	} else {
		err = errors.Join(err, dir.Sync(), dir.Close())
	}
	if err == nil && !expected {
		err = s.db.Set(metaKey(reachRow), []byte{reachVersion}, pebble.Sync)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r.synced.Store(last)
	return nil
}

// write notes seq in the place whose turn it is.
func (r *reach) write(seq uint64) error {
	var b [reachBytes]byte
	if _, err := r.file.WriteAt(appendReach(b[:0], seq), r.place*reachPage); err != nil {
		return err
	}
	r.place = 1 - r.place
	r.noted.Store(seq)
	return nil
}

// appendCompany encodes the page with the company of a node.
func appendCompany(dst []byte, company bool) []byte {
	at := len(dst)
	dst = append(dst, reachVersion, 0)
	if company {
		dst[at+1] = 1
	}
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

// decodeCompany is its inverse.
func decodeCompany(b []byte) (company, ok bool) {
	if len(b) != companyBytes || b[0] != reachVersion || b[1] > 1 {
		return false, false
	}
	sum := binary.LittleEndian.Uint32(b[companyBytes-4:])
	return b[1] == 1, crc32.Checksum(b[:companyBytes-4], castagnoli) == sum
}

// readCompany reads that page. A new directory has none, and no company.
func (s *Store) readCompany(fresh bool) error {
	if fresh {
		s.reach.alone.Store(true)
		return nil
	}
	f, err := s.fs().Open(s.fs().PathJoin(s.cfg.Dir, reachName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reach: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var b [companyBytes]byte
	if _, err := f.ReadAt(b[:], companyPlace*reachPage); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reach: read: %w", err)
	}
	company, ok := decodeCompany(b[:])
	s.reach.alone.Store(ok && !company)
	return nil
}

func (r *reach) writeCompany(company bool) error {
	_, err := r.file.WriteAt(appendCompany(nil, company), companyPlace*reachPage)
	return err
}

// NoteCompany notes durably whether the node has company: is a member of a ring
// with others. The note lies beside the log and outlives its end. Who has lost
// that end may have lost with it that there are others, and would take its own
// disk for all that there is; so it is noted before the ring is.
func (s *Store) NoteCompany(company bool) error {
	if s.reach.alone.Load() == !company {
		return nil
	}
	err := s.reach.writeCompany(company)
	if err == nil {
		err = s.syncReach(s.reach.noted.Load())
	}
	if err != nil {
		return fmt.Errorf("reach: %w", err)
	}
	s.reach.alone.Store(!company)
	return nil
}

// Company is what NoteCompany was last told: false in a new directory, and true
// where nobody can say.
func (s *Store) Company() bool { return !s.reach.alone.Load() }

// noteCommit is told of each batch that was committed, by the goroutine that
// commits. Requires: if synced, the log is durable up to this batch.
func (s *Store) noteCommit(seq uint64, ops int, synced bool) error {
	r := &s.reach
	if ops > 0 {
		r.logged = seq
		if !r.fresh.Load() {
			r.fresh.Store(true)
		}
	}
	if !synced || r.logged == r.noted.Load() {
		return nil
	}
	defer s.watched.end(s.watched.begin())
	if err := r.write(r.logged); err != nil {
		return fmt.Errorf("reach: %w", err)
	}
	return nil
}

// keepReach syncs the note while there is news, and the log while there is none.
func (s *Store) keepReach() {
	tick := time.NewTicker(reachInterval)
	defer tick.Stop()
	r := &s.reach
	idle := time.Duration(0)
	for {
		select {
		case <-s.stop:
			return
		case <-s.broken:
			return
		case <-tick.C:
		}
		if noted := r.noted.Load(); noted != r.synced.Load() {
			idle = 0
			if err := s.syncReach(noted); err != nil {
				s.fail(fmt.Errorf("reach: sync: %w", err))
				return
			}
			continue
		}
		if idle += reachInterval; idle >= idleSync {
			idle = 0
			_, _ = s.enqueue(nil, forced, nil) // refused only at the end of the store
		}
	}
}

// syncReach makes the note durable, which says at least noted.
func (s *Store) syncReach(noted uint64) error {
	defer s.watched.end(s.watched.begin())
	if err := s.reach.file.SyncData(); err != nil {
		return err
	}
	s.reach.synced.Store(noted)
	return nil
}

// closeReach ends the note. After a clean end of the engine, which syncs all
// that was logged, it says so.
func (s *Store) closeReach(clean bool) error {
	r := &s.reach
	if r.file == nil {
		return nil
	}
	var err error
	if clean && r.logged != r.noted.Load() {
		err = r.write(r.logged)
	}
	if clean && err == nil {
		err = r.file.Sync()
	}
	return errors.Join(err, r.file.Close())
}

// Lost is why this open is known to lack writes that had been acknowledged, or
// nil. It wraps ErrLost.
func (s *Store) Lost() error { return s.lost }

// Reached is the number of the last batch that is durable and left a trace. It
// grows from one run to the next, also over a loss that Lost reports; a
// directory that answers less than it once did has been put back in time.
func (s *Store) Reached() uint64 { return s.reach.noted.Load() }
