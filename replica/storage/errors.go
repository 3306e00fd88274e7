package storage

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound says that there is no such row. Only a successful lookup
	// answers it: a row that cannot be read is ErrCorrupt or an I/O error.
	ErrNotFound = errors.New("storage: row not found")

	// ErrBusy refuses a write because too much is queued, or because the engine
	// has stopped taking writes until it has flushed and compacted. Nothing of
	// the write was kept; another node may be less busy.
	ErrBusy = errors.New("storage: write queue full or stalled")

	// ErrDiskFull is the ErrBusy of a disk that is almost full. Reads go on.
	ErrDiskFull = fmt.Errorf("storage: disk almost full, writes refused: %w", ErrBusy)

	// ErrClosed answers every call after Close began.
	ErrClosed = errors.New("storage: closed")

	// ErrFailed answers every write after the engine hit an error that it cannot
	// recover from. The process should end: see Config.Fatal.
	ErrFailed = errors.New("storage: engine failed")

	// ErrLost says that a directory was opened without writes that had been
	// acknowledged as durable in it.
	ErrLost = errors.New("storage: acknowledged writes are missing")

	// ErrStalled is the ErrFailed of a disk that has stood still for longer than
	// Config.StallLimit.
	ErrStalled = errors.New("storage: disk stands still")

	// ErrCorrupt marks rows that are on the disk but cannot be read back.
	ErrCorrupt = errors.New("storage: corrupt data")

	// ErrHole says that a row is not there and may have been lost to damage. It is
	// corrupt, and not absent.
	ErrHole = fmt.Errorf("%w: lost, and not yet brought back", ErrCorrupt)

	// ErrReplaced answers a snapshot whose rows were replaced since it was taken,
	// because of damage. A new snapshot has them.
	ErrReplaced = errors.New("storage: rows were replaced since the snapshot")

	// ErrFormatTooOld refuses a directory whose row layout was never part of a
	// release.
	ErrFormatTooOld = errors.New("storage: directory was written by a development version")

	// ErrFormatTooNew refuses a directory written by a newer version of the row
	// layout.
	ErrFormatTooNew = errors.New("storage: directory was written by a newer version")
)
