package membership

import (
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// fakeRoster takes this node for dead until it has spoken of itself so many times.
type fakeRoster struct{ deaf, said int }

func (r *fakeRoster) Members() []*memberlist.Node {
	nodes := []*memberlist.Node{{Name: "another"}}
	if r.said >= r.deaf {
		nodes = append(nodes, &memberlist.Node{Name: "self"})
	}
	return nodes
}

func (r *fakeRoster) UpdateNode(time.Duration) error { r.said++; return nil }

func TestANodeSpeaksUntilItIsOnItsOwnList(t *testing.T) {
	for _, c := range []struct {
		deaf, says int
		listed     bool
	}{
		{0, 0, true},
		{1, 1, true},
		{enlistTries - 1, enlistTries - 1, true},
		{enlistTries + 1, enlistTries, false},
	} {
		r := &fakeRoster{deaf: c.deaf}
		if err := enlist(r, "self"); (err == nil) != c.listed || r.said != c.says {
			t.Errorf("dead until it has spoken %d times: %v after %d times, want %v after %d", c.deaf, err, r.said, c.listed, c.says)
		}
	}
}
