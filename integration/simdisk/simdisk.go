// Package simdisk is a disk in memory whose contents can be copied while it is in use.
//
// It is for tests. A vfs.MemFS locks itself twice when it reuses or locks a file, and
// waits for ever if a copy is asked for between the two.
package simdisk

import (
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Disk gives an engine the files of a vfs.MemFS. Copies are made of that.
type Disk struct{ *vfs.MemFS }

// Of is fs, and a Disk of it if that is a vfs.MemFS.
func Of(fs vfs.FS) vfs.FS {
	if mem, is := fs.(*vfs.MemFS); is {
		return Disk{mem}
	}
	return fs
}

// ReuseForWrite renames a file and opens it, as a file system of a machine does.
func (d Disk) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.Rename(from, to); err != nil {
		return nil, err
	}
	return d.OpenReadWrite(to, category)
}

// Lock makes the file that a lock is on. Nobody is kept out by it.
func (d Disk) Lock(name string) (io.Closer, error) {
	return d.Create(name, vfs.WriteCategoryUnspecified)
}
