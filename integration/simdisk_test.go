package integration

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/integration/simdisk"
)

// slowDisk is a disk whose log takes time to sync, so that there is a moment
// between a write and its durability for things to happen in. Only the log: the
// engine syncs other files under its locks, where virtual time would stop.
type slowDisk struct {
	simdisk.Disk
	extra *atomic.Int64 // time added to each sync; a disk that is about to fail
	over  *atomic.Bool  // its node is being opened or closed: the engine may then sync the log under its lock
	bad   *atomic.Bool  // the next sync fails
}

// errBadSync is what a disk says that cannot keep what it took.
var errBadSync = errors.New("input/output error")

// syncTime is what a sync takes at most, of a good disk.
const syncTime = 2 * time.Millisecond

func (d slowDisk) slow(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return slowFile{f, d}, nil
}

func (d slowDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.Disk.Create(name, c)
	return d.slow(name, f, err)
}

func (d slowDisk) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.Disk.ReuseForWrite(from, to, c)
	return d.slow(to, f, err)
}

type slowFile struct {
	vfs.File
	disk slowDisk
}

// wait takes the time of a sync, and answers its error.
func (f slowFile) wait() error {
	if f.disk.over.Load() {
		return nil
	}
	time.Sleep(rand.N(syncTime) + time.Duration(f.disk.extra.Load()))
	if f.disk.bad.Load() {
		return errBadSync
	}
	return nil
}

func (f slowFile) Sync() error {
	if err := f.wait(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f slowFile) SyncData() error {
	if err := f.wait(); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f slowFile) SyncTo(length int64) (bool, error) {
	if err := f.wait(); err != nil {
		return false, err
	}
	return f.File.SyncTo(length)
}

// rotFiles turns a bit in so many places of the files of a disk whose names end so, or of
// the newest of them, and answers how many there were. It is there after a crash, too.
func rotFiles(disk *vfs.MemFS, suffix string, newest bool, rng *rand.Rand, places int) (turned int, err error) {
	all, err := disk.List("/data/store")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	names := slices.DeleteFunc(all, func(name string) bool { return !strings.HasSuffix(name, suffix) })
	slices.Sort(names)
	if newest && len(names) > 0 {
		names = names[len(names)-1:]
	}
	for range places {
		if len(names) == 0 {
			break
		}
		done, err := rotFile(disk, "/data/store/"+names[rng.IntN(len(names))], rng)
		if err != nil {
			return turned, err
		}
		turned += done
	}
	return turned, nil
}

// rotFile turns one bit of a file, if it has any.
func rotFile(disk *vfs.MemFS, name string, rng *rand.Rand) (turned int, err error) {
	f, err := disk.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, err
	}
	var b [1]byte
	at := rng.Int64N(info.Size())
	if _, err := f.ReadAt(b[:], at); err != nil {
		return 0, err
	}
	b[0] ^= 1 << rng.IntN(8)
	if _, err := f.WriteAt(b[:], at); err != nil {
		return 0, err
	}
	return 1, f.Sync()
}
