//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The requests of ext4 and of every file system that freezes.
const (
	ioctlFreeze   = 0xc0045877
	ioctlThaw     = 0xc0045878
	ioctlShutdown = 0x8004587d
	// shutdownNoLog drops what the journal has not written yet, as a power cut does.
	shutdownNoLog = 2
)

// freeze stops, or starts again, all writing to the file system at path.
func freeze(path string, frozen bool) error {
	request := uint(ioctlThaw)
	if frozen {
		request = ioctlFreeze
	}
	return ioctl(path, request, 0)
}

// cutPower takes from the file system at path what it has not made durable.
// Nothing can be written until it is mounted anew.
func cutPower(path string) error { return ioctl(path, ioctlShutdown, shutdownNoLog) }

func ioctl(path string, request uint, value uint32) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(unsafe.Pointer(&value))); errno != 0 {
		return fmt.Errorf("ioctl %#x of %s: %w", request, path, errno)
	}
	return nil
}

// mountExt4 mounts the disk image beside dir at dir, and makes it at first.
func mountExt4(dir string, mib int) error {
	image := dir + ".img"
	if _, err := os.Stat(image); err != nil {
		f, err := os.Create(image)
		if err != nil {
			return err
		}
		err = f.Truncate(int64(mib) << 20)
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return err
		}
		if err := command("mkfs.ext4", "-q", "-m", "0", image); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return command("mount", "-o", "loop", image, dir)
}

// mountTmpfs mounts memory of some size at dir.
func mountTmpfs(dir string, mib int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", mib), "redynamo-scorecard", dir)
}

// leaveFree changes the size of the memory at dir so that so much of it is free.
func leaveFree(dir string, mib int) error {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return fmt.Errorf("space of %s: %w", dir, err)
	}
	used := int64(disk.Blocks-disk.Bfree) * disk.Bsize >> 20
	return command("mount", "-o", fmt.Sprintf("remount,size=%dm", used+int64(mib)), dir)
}

// copyDir makes to a copy of the directory from.
func copyDir(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.CopyFS(to, os.DirFS(from))
}

// flipBit changes one bit of a file.
func flipBit(path string, at int64) error {
	return edit(path, at, 1, func(b []byte) { b[0] ^= 1 << (at % 8) })
}

// zeroPage overwrites a page of a file with zeros.
func zeroPage(path string, at int64) error {
	return edit(path, at, 4096, func(b []byte) { clear(b) })
}

func edit(path string, at int64, n int, change func([]byte)) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, n)
	got, err := f.ReadAt(buf, at)
	if got == 0 {
		return fmt.Errorf("read %s at %d: %w", path, at, err)
	}
	change(buf[:got])
	_, err = f.WriteAt(buf[:got], at)
	return err
}

// newestFile is the file of a data directory with the given ending that was
// changed last, and its size.
func newestFile(dir, ending string) (path string, size int64, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "store", "*"+ending))
	if err != nil {
		return "", 0, err
	}
	var newest int64
	for _, p := range paths {
		info, err := os.Stat(p)
		if err == nil && info.ModTime().UnixNano() >= newest && info.Size() > 0 {
			path, size, newest = p, info.Size(), info.ModTime().UnixNano()
		}
	}
	if path == "" {
		return "", 0, fmt.Errorf("no %s file in %s", ending, dir)
	}
	return path, size, nil
}
