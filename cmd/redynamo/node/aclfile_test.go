package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheACLFileIsReplacedAsAWhole(t *testing.T) {
	dir := t.TempDir()
	f := aclFile(filepath.Join(dir, "users.acl"))
	if _, err := f.Load(); err == nil || strings.Contains(err.Error(), dir) {
		t.Errorf("a file that is not there: %v", err)
	}
	for _, text := range []string{"user a on\nuser b off\n", "user a off\n", ""} {
		if err := f.Save(text); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Load(); err != nil || got != text {
			t.Errorf("got %q, %v; want %q", got, err, text)
		}
	}
	info, err := os.Stat(string(f))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(string(f), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := f.Save("user c on\n"); err != nil {
		t.Fatal(err)
	}
	if info, err = os.Stat(string(f)); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the mode is not kept: %v, %v", info.Mode(), err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("files are left behind: %v, %v", left, err)
	}
}

func TestAnACLFileThatCannotBeReplacedStays(t *testing.T) {
	dir := t.TempDir()
	f := aclFile(filepath.Join(dir, "users.acl"))
	if err := os.MkdirAll(filepath.Join(string(f), "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.Save("user a on\n"); err == nil {
		t.Error("a directory was replaced")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("files are left behind: %v, %v", left, err)
	}
}

func TestAnACLFileHasALimit(t *testing.T) {
	f := aclFile(filepath.Join(t.TempDir(), "users.acl"))
	if err := f.Save("x"); err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int64]bool{maxACLFile: true, maxACLFile + 1: false} {
		if err := os.Truncate(string(f), size); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Load(); (err == nil) != want {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
