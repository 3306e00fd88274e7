package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redynamo/redynamo/membership"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/resp"
)

// This file shows the level of the cluster and raises it; package membership says
// what a level is.

// mixed is resp.ErrMixed with an explanation of its own.
type mixed struct{ why string }

func (m mixed) Error() string        { return m.why }
func (m mixed) Is(target error) bool { return target == resp.ErrMixed }

// levels are what the protocol between nodes goes by.
func (n *Node) levels() rpc.Levels {
	return rpc.Levels{InForce: n.members.View().Level, Highest: n.cfg.MaxLevel}
}

// Finalise is resp.RingAdmin. Whom gossip takes for alive must answer too: it notices
// sooner that a program has been replaced.
func (a *ringAdmin) Finalise() (already bool, err error) {
	v := a.view()
	if v.Ring == nil {
		return false, errNoRing
	}
	var silent []string
	for id, info := range v.Nodes {
		if info.Alive && id != a.self && !a.up(id) {
			silent = append(silent, fmt.Sprintf("node %v (%s) does not answer", id, info.Endpoints.PlainAddr()))
		}
	}
	if self, _ := v.Node(a.self); v.Level < self.MaxLevel && len(silent) > 0 {
		slices.Sort(silent)
		return false, mixed{fmt.Sprintf("not every node is known to serve the level %d: %s", self.MaxLevel, strings.Join(silent, "; "))}
	}
	ctx, cancel := context.WithTimeout(context.Background(), applyTimeout)
	defer cancel()
	already, err = a.finalise(ctx)
	if errors.Is(err, membership.ErrMixed) {
		err = mixed{err.Error()}
	}
	return already, err
}

// levelFields are the level of the cluster and what this node serves, for RING STATUS
// and INFO.
func levelFields(v *membership.View) []resp.Field {
	self, _ := v.Node(v.Self)
	return []resp.Field{
		{Name: "level", Value: strconv.Itoa(int(v.Level))},
		{Name: "max-level", Value: strconv.Itoa(int(self.MaxLevel))},
	}
}
