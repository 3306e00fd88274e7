package integration

import (
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// slowDisk is a disk whose log takes time to sync, so that there is a moment
// between a write and its durability for things to happen in. Only the log: the
// engine syncs other files under its locks, where virtual time would stop.
type slowDisk struct {
	*vfs.MemFS
	extra *atomic.Int64 // time added to each sync; a disk that is about to fail
	ended *atomic.Bool  // its node is being closed: the engine then syncs the log under its lock
}

// syncTime is what a sync takes at most, of a good disk.
const syncTime = 2 * time.Millisecond

func (d slowDisk) slow(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return slowFile{f, d}, nil
}

func (d slowDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.MemFS.Create(name, c)
	return d.slow(name, f, err)
}

func (d slowDisk) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.MemFS.ReuseForWrite(from, to, c)
	return d.slow(to, f, err)
}

type slowFile struct {
	vfs.File
	disk slowDisk
}

func (f slowFile) wait() {
	if f.disk.ended.Load() {
		return
	}
	time.Sleep(rand.N(syncTime) + time.Duration(f.disk.extra.Load()))
}

func (f slowFile) Sync() error {
	f.wait()
	return f.File.Sync()
}

func (f slowFile) SyncData() error {
	f.wait()
	return f.File.SyncData()
}

func (f slowFile) SyncTo(length int64) (bool, error) {
	f.wait()
	return f.File.SyncTo(length)
}
