package storage

import (
	"fmt"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// walSuffix is how the engine names the files of its write-ahead log.
const walSuffix = ".log"

// backgroundPause is the pause before each new table while flushes fail.
const backgroundPause = 100 * time.Millisecond

// engineFS stands between the engine and the disk, for two reasons.
//
// It takes the errors of the write-ahead log out of the engine's hands.
// The engine treats a failed log as the end of the process: depending on where
// it notices, it calls Fatalf, panics, or panics with one of its locks undone,
// which the runtime punishes with a crash that no recover can stop. Here the
// first error of a log file fails the store instead, and from then on the log
// is dead: nothing is written to it, nothing of it is removed, and the engine
// hears of no error. Nothing is acknowledged after that either, because the
// commit loop looks at the failure after each batch, before it answers.
//
// What had been acknowledged lies in the log before the dead end, and stays.
//
// And it slows down the retries of a flush that fails, on a full disk for
// instance: the engine retries at once, for ever, and would burn a core.
type engineFS struct {
	vfs.FS
	s *Store
}

// wal reports whether the name is that of a log file.
func wal(name string) bool { return strings.HasSuffix(name, walSuffix) }

// dead reports whether the log has failed.
func (f engineFS) dead() bool { return f.s.walDead.Load() }

// kill fails the store because of an error of its log.
func (f engineFS) kill(what string, err error) {
	f.s.walDead.Store(true)
	f.s.fail(fmt.Errorf("log: %s: %w", what, err))
}

// Create makes a log file that reports to f, or any other file.
func (f engineFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if !wal(name) {
		if f.s.retrying.Load() && (strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")) {
			time.Sleep(backgroundPause) // no lock of the engine is held here
		}
		return f.FS.Create(name, category)
	}
	if f.dead() {
		return f.deadFile(), nil
	}
	defer f.s.watched.end(f.s.watched.begin())
	file, err := f.FS.Create(name, category)
	if err != nil {
		f.kill("create", err)
		return f.deadFile(), nil
	}
	return &walFile{File: file, fs: f}, nil
}

// ReuseForWrite turns an obsolete log file into a new one that reports to f.
func (f engineFS) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if !wal(name) {
		return f.FS.ReuseForWrite(old, name, category)
	}
	if f.dead() {
		return f.deadFile(), nil
	}
	defer f.s.watched.end(f.s.watched.begin())
	file, err := f.FS.ReuseForWrite(old, name, category)
	if err != nil {
		f.kill("reuse", err)
		return f.deadFile(), nil
	}
	return &walFile{File: file, fs: f}, nil
}

// Remove keeps the log files of a store whose log has failed.
func (f engineFS) Remove(name string) error {
	if wal(name) && f.dead() {
		return nil
	}
	return f.FS.Remove(name)
}

// Unwrap returns the file system below.
func (f engineFS) Unwrap() vfs.FS { return f.FS }

// deadFile stands in for a log file that could not be made.
func (f engineFS) deadFile() vfs.File { return &walFile{File: vfs.NewMemFile(nil), fs: f} }

// walFile is one file of the log, being written.
type walFile struct {
	vfs.File
	fs engineFS
}

// Write appends p, or pretends to once the log is dead.
func (w *walFile) Write(p []byte) (int, error) {
	if !w.fs.dead() {
		defer w.fs.s.watched.end(w.fs.s.watched.begin())
		if _, err := w.File.Write(p); err != nil {
			w.fs.kill("write", err)
		}
	}
	return len(p), nil
}

// sync runs one of the file's sync calls, unless the log is dead.
func (w *walFile) sync(call func() error) error {
	if !w.fs.dead() {
		defer w.fs.s.watched.end(w.fs.s.watched.begin())
		if err := call(); err != nil {
			w.fs.kill("sync", err)
		}
	}
	return nil
}

// Sync makes the file durable, or fails the store.
func (w *walFile) Sync() error { return w.sync(w.File.Sync) }

// SyncData makes the written data durable, or fails the store.
func (w *walFile) SyncData() error { return w.sync(w.File.SyncData) }

// SyncTo begins to make a prefix durable, or fails the store.
func (w *walFile) SyncTo(length int64) (full bool, err error) {
	err = w.sync(func() (err error) {
		full, err = w.File.SyncTo(length)
		return err
	})
	return full, err
}

// Close closes the file, or fails the store: some file systems report the
// errors of earlier writes only here.
func (w *walFile) Close() error {
	if err := w.File.Close(); err != nil && !w.fs.dead() {
		w.fs.kill("close", err)
	}
	return nil
}
