package storage

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// engineFormat is the on-disk version of Pebble that we write. It is named and
// not FormatNewest, since an upgrade of the library must not make a directory
// unreadable for the release before; a test says when a newer one exists. The
// library's own default is its oldest format, which loses synced writes in
// silence when one bit of the log flips.
const engineFormat = pebble.FormatValueSeparation

// walBytesPerSync makes the system write the log out while it grows. A
// generation is applied unsynced, and the sync that its log ends with would
// otherwise find all of it still to be written, with every commit waiting.
const walBytesPerSync = 512 << 10

// engineOptions returns the options of the engine for s.
func (s *Store) engineOptions(cache *pebble.Cache) *pebble.Options {
	opts := &pebble.Options{
		FS:                          s.cfg.FS,
		Cache:                       cache,
		FormatMajorVersion:          engineFormat,
		MemTableSize:                uint64(s.cfg.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		WALBytesPerSync:             walBytesPerSync,
		L0StopWritesThreshold:       24,
		Logger:                      engineLogger{s},
		EventListener:               s.events(),
		CompactionConcurrencyRange:  func() (int, int) { return 1, max(1, runtime.GOMAXPROCS(0)) },
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	opts.Experimental.CompactionScheduler = &s.brake
	// Otherwise readers would find neither the old rows nor the new ones of a range
	// that is replaced until some later flush: see swaps.
	opts.Experimental.DisableIngestAsFlushable = func() bool { return true }
	if opts.FS == nil {
		opts.WithFSDefaults()
	}
	opts.FS = engineFS{FS: opts.FS, s: s}
	return opts
}

// collectsStats reports whether the caller of the listener is the engine's collector of
// statistics of tables. It reads a table whose properties are damaged again at once, for
// ever, and would burn a core. It is the only one that holds no lock then, and nothing
// but its place on the stack tells it from the others.
func collectsStats() bool {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, ".collectTableStats") {
			return true
		}
		if !more {
			return false
		}
	}
}

// events returns the listener that turns the engine's news into state of s.
// Note: the engine calls it with its own locks held.
func (s *Store) events() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			s.meters.background.Inc()
			s.brake.pull(time.Now())
			if !s.retrying.Swap(true) {
				s.cfg.Logger.Error("storage: background work fails, retrying", "err", err)
			}
			if collectsStats() {
				time.Sleep(backgroundPause)
			}
		},
		FlushEnd: func(info pebble.FlushInfo) {
			if info.Err == nil && s.retrying.Swap(false) {
				s.cfg.Logger.Info("storage: background work succeeds again")
			}
		},
		// The default handler ends the process. One bad block fails only the
		// keys in it here, until it is taken out of the tables.
		DataCorruption: s.corruptFile,
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			s.meters.stalls.Inc()
			s.stalledSince.Store(time.Now().UnixNano())
			s.cfg.Logger.Warn("storage: write stall begins", "reason", info.Reason)
		},
		WriteStallEnd: func() {
			s.stalledSince.Store(0)
			s.cfg.Logger.Warn("storage: write stall ended")
		},
		DiskSlow: func(pebble.DiskSlowInfo) { s.meters.slowDisk.Inc() },
	}
}

// engineLogger passes what the engine has to say to the logger of the store.
type engineLogger struct{ s *Store }

// Infof is the engine's running commentary: for debugging only.
func (l engineLogger) Infof(format string, args ...any) {
	l.s.cfg.Logger.Debug("storage: engine", "text", lazyText{format, args})
}

// Errorf reports what the engine could work around.
func (l engineLogger) Errorf(format string, args ...any) {
	l.s.cfg.Logger.Error("storage: engine", "text", lazyText{format, args})
}

// Fatalf ends the calling goroutine. Invariant: it never returns. Were it to
// return, a commit whose log write failed would go on and answer success.
func (l engineLogger) Fatalf(format string, args ...any) {
	l.s.fail(fmt.Errorf(format, args...))
	runtime.Goexit()
}

// lazyText is formatted only if some handler wants the line.
type lazyText struct {
	format string
	args   []any
}

// String formats the text.
func (t lazyText) String() string { return fmt.Sprintf(t.format, t.args...) }

// errGoexit is the outcome of a guarded call that Fatalf ended.
var errGoexit = errors.New("storage: engine ended the goroutine")

// guarded runs fn on a goroutine of its own, where the engine may end the
// goroutine or panic without taking the caller along, and waits for it.
func guarded(fn func() error) error {
	err := errGoexit
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() {
			if p := recover(); p != nil {
				err = panicError(p)
			}
		}()
		err = fn()
	}()
	<-ended
	return err
}

// panicError turns a panic of the engine into an error: it panics when the
// disk refuses a new log file, which is no fault of the program.
func panicError(p any) error {
	if err, ok := p.(error); ok {
		return fmt.Errorf("engine panic: %w\n%s", err, debug.Stack())
	}
	return fmt.Errorf("engine panic: %v\n%s", p, debug.Stack())
}
