package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/redynamo/redynamo/resp"
)

// maxACLFile bounds a file that may be anything.
const maxACLFile = 64 << 20

// aclFile is the file of --aclfile.
type aclFile string

// Name is without the directory: clients are shown it.
func (f aclFile) Name() string { return filepath.Base(string(f)) }

// Load reads the whole file.
func (f aclFile) Load() (string, error) {
	file, err := os.Open(string(f))
	if err != nil {
		return "", withoutPath(err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxACLFile+1))
	switch {
	case err != nil:
		return "", withoutPath(err)
	case len(text) > maxACLFile:
		return "", fmt.Errorf("longer than %d bytes", maxACLFile)
	}
	return string(text), nil
}

// withoutPath is what is wrong with a file, for whoever need not know where it lies.
func withoutPath(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// Save writes a file beside the old one, syncs it, puts it in its place and syncs that:
// whenever the power goes, there is the old one or the new one. What is kept of
// passwords is for the owner's eyes, unless the old file was for others' too.
func (f aclFile) Save(text string) (err error) {
	mode := fs.FileMode(0o600)
	if old, err := os.Stat(string(f)); err == nil {
		mode = old.Mode().Perm()
	}
	dir := filepath.Dir(string(f))
	file, err := os.CreateTemp(dir, "."+f.Name()+".*.tmp")
	if err != nil {
		return fmt.Errorf("aclfile: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name()) // it says nothing that the error does not
		}
	}()
	_, err = file.WriteString(text)
	err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), string(f))
	}
	if err != nil {
		return fmt.Errorf("aclfile: %w", err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("aclfile: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("aclfile: %w", err)
	}
	return nil
}

// newAccess reads who may do what on this node.
func newAccess(cfg Config) (*resp.Access, error) {
	access := resp.AccessConfig{Password: cfg.RequirePass, Protected: cfg.ProtectedMode, Debug: resp.DebugMode(cfg.DebugCommand)}
	if cfg.ACLFile != "" {
		access.File = aclFile(cfg.ACLFile)
	}
	return resp.NewAccess(access)
}
