package membership

import (
	"errors"
	"fmt"
)

// errOrphan is the end of a node that does not even know its cluster any more, and
// would create another one.
var errOrphan = errors.New("membership: the data directory has lost which cluster this node was a member of: start it with --join HOST:GOSSIPPORT of another member, or empty the directory")

// orphaned reports whether the disk has lost so much that the node takes itself for
// the only owner, though it had company. What it took by that ring would lie on its
// own disk only, so it must hear of the others, however long that takes.
func (m *Membership) orphaned() bool {
	return m.cfg.Recovering && !m.met && (m.live == nil || len(m.live.Base.Members()) <= 1) && m.cfg.Store.Company()
}

// noteCompany notes whether there are other members.
func (m *Membership) noteCompany(company bool) error {
	if err := m.cfg.Store.NoteCompany(company); err != nil {
		return fmt.Errorf("membership: save: %w", err)
	}
	return nil
}
