package resp

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// RingAdmin is what the doors need to change the ring. Its methods may compute
// for a while, and wait for the disk.
type RingAdmin interface {
	// Plan works out what edits would come to; they are carried out by Apply.
	Plan(edits []RingEdit, force bool) (RingPlan, error)
	// Apply commits the plan with the given id, if the ring is still the one that
	// it was made for, or what it says is so already.
	Apply(id string) (already bool, err error)
	// Forget makes the ring go on without a member that will never be back, if it
	// does not already.
	Forget(node string, force bool) (already bool, err error)
	// Finalise raises the level of the cluster, if it is not there already; ErrMixed says
	// that some node may be of an older release.
	Finalise() (already bool, err error)
	// Transfers describes the change of the ring that is under way, if one is.
	Transfers() RingTransfers
}

// Errors of a RingAdmin that have a word of their own on the wire.
var (
	ErrNoPlan    = errors.New("resp: no such plan")
	ErrRingMoved = errors.New("resp: the ring has changed since the plan was made")
)

// RingEdit is one wish of RING PLAN. Nodes are named by id or by the address of
// their plain door.
type RingEdit struct {
	Kind     ring.EditKind
	Node, By string
	Weight   int
	Zone     string
}

// RingPlan is what RING PLAN answers.
type RingPlan struct {
	ID string
	ring.Plan
	Took     time.Duration // how long it will take, about; 0: not known
	Warnings []string
}

// RingTransfers is what RING TRANSFERS answers.
type RingTransfers struct {
	Fields    []Field // of the whole change
	Transfers []RingTransfer
}

// RingTransfer is what one node gives another.
type RingTransfer struct {
	From, To          ring.NodeID
	Partitions, Done  int
	Bytes, BytesTotal int64
	State             string
}

// maxEdits bounds the edits of one plan.
const maxEdits = 256

const planSyntax = "ERR syntax error, try RING PLAN [ADD node ...] [REMOVE node ...] [REPLACE old new] [WEIGHT node weight] [ZONE node zone] [FORCE]"

// parseEdits reads the words of RING PLAN.
func parseEdits(words [][]byte) (edits []RingEdit, force bool, err error) {
	at := 0
	next := func() string { // the next word that is no keyword
		if at == len(words) || isEditWord(words[at]) {
			return ""
		}
		at++
		return string(words[at-1])
	}
	for at < len(words) {
		word := strings.ToLower(string(words[at]))
		at++
		e, many := RingEdit{}, false
		switch word {
		case "add":
			e.Kind, many = ring.Add, true
		case "remove":
			e.Kind, many = ring.Remove, true
		case "replace":
			e.Kind = ring.Replace
		case "weight":
			e.Kind = ring.Reweigh
		case "zone":
			e.Kind = ring.Rezone
		case "force":
			force = true
			continue
		default:
			return nil, false, errors.New(planSyntax)
		}
		if e.Node = next(); e.Node == "" {
			return nil, false, errors.New(planSyntax)
		}
		switch e.Kind {
		case ring.Replace:
			e.By = next()
		case ring.Reweigh:
			text := next()
			if e.Weight, err = strconv.Atoi(text); err != nil || e.Weight < 0 || e.Weight > ring.MaxWeight {
				return nil, false, fmt.Errorf("ERR a weight is a number from 0 to %d", ring.MaxWeight)
			}
		case ring.Rezone:
			e.Zone = next()
		}
		if e.Kind == ring.Replace && e.By == "" || e.Kind == ring.Rezone && e.Zone == "" {
			return nil, false, errors.New(planSyntax)
		}
		edits = append(edits, e)
		for many {
			if e.Node = next(); e.Node == "" {
				break
			}
			edits = append(edits, e)
		}
		if len(edits) > maxEdits {
			return nil, false, fmt.Errorf("ERR a plan has at most %d changes", maxEdits)
		}
	}
	if len(edits) == 0 {
		return nil, false, errors.New(planSyntax)
	}
	return edits, force, nil
}

func isEditWord(word []byte) bool {
	switch strings.ToLower(string(word)) {
	case "add", "remove", "replace", "weight", "zone", "force":
		return true
	}
	return false
}

// ringPlan answers a map: what would move, and a map for each node.
func ringPlan(s *session, args [][]byte, w *Reply) {
	edits, force, err := parseEdits(args[2:])
	if err != nil {
		w.Error(err.Error())
		return
	}
	p, err := s.srv.cfg.Ring.Plan(edits, force)
	if err != nil {
		ringFailed(w, err)
		return
	}
	moving, least := strconv.Itoa(p.Replicas), strconv.Itoa(p.MinReplicas)
	seconds := ""
	if p.Took > 0 {
		seconds = strconv.FormatFloat(p.Took.Seconds(), 'f', 0, 64)
	}
	fields := []Field{
		{"plan", p.ID},
		{"from-epoch", strconv.FormatUint(p.From.Epoch(), 16)},
		{"to-epoch", strconv.FormatUint(p.To.Epoch(), 16)},
		{"partitions", strconv.Itoa(len(p.Moves))},
		{"copies", moving},
		{"copies-least", least},
		{"bytes", strconv.FormatInt(p.Bytes, 10)},
		{"seconds", seconds},
		{"balance-before", ratio(p.BalanceBefore)},
		{"balance-after", ratio(p.BalanceAfter)},
		{"zone-failures-survived-before", strconv.Itoa(max(p.ZonesBefore-1, 0))},
		{"zone-failures-survived-after", strconv.Itoa(max(p.ZonesAfter-1, 0))},
	}
	w.Map(len(fields) + 2)
	for _, f := range fields {
		w.BulkString(f.Name)
		w.BulkString(f.Value)
	}
	w.BulkString("warnings")
	w.Array(len(p.Warnings))
	for _, text := range p.Warnings {
		w.BulkString(text)
	}
	w.BulkString("nodes")
	w.Array(len(p.Nodes))
	for _, n := range p.Nodes {
		writeFields(w,
			Field{"node", n.ID.String()},
			Field{"zone", n.Zone},
			Field{"before", strconv.Itoa(n.Before)},
			Field{"after", strconv.Itoa(n.After)},
			Field{"gains", strconv.Itoa(n.Gained)},
			Field{"loses", strconv.Itoa(n.Lost)},
			Field{"bytes-in", strconv.FormatInt(n.BytesIn, 10)})
	}
}

func ratio(x float64) string { return strconv.FormatFloat(x, 'f', 3, 64) }

// ringFailed answers an error of a RingAdmin. What is wrong with a change is the
// administrator's to read.
func ringFailed(w *Reply, err error) {
	switch {
	case errors.Is(err, ErrNoPlan):
		w.Error("ERR this node has no such plan; plans are kept for a while by the node that made them")
	case errors.Is(err, ErrRingMoved):
		w.Error("RINGMOVED the ring has changed since the plan was made, plan again")
	case errors.Is(err, ring.ErrUnsafe):
		w.Error("UNSAFE " + oneLine(err) + "; FORCE overrules")
	default:
		w.Error("ERR " + oneLine(err))
	}
}

// oneLine is the text of an error, joined ones in a row.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// ringApply carries a plan out.
func ringApply(s *session, args [][]byte, w *Reply) {
	already, err := s.srv.cfg.Ring.Apply(string(args[2]))
	ringChanged(w, already, err)
}

// ringChanged answers a change of the ring. One that was made before is no error,
// so that a command may be repeated.
func ringChanged(w *Reply, already bool, err error) {
	switch {
	case err != nil:
		ringFailed(w, err)
	case already:
		w.Simple("OK it is so already")
	default:
		w.Simple("OK")
	}
}

// ringForget gives a member up.
func ringForget(s *session, args [][]byte, w *Reply) {
	force := len(args) == 4 && strings.EqualFold(string(args[3]), "force")
	if len(args) > 4 || len(args) == 4 && !force {
		w.Error("ERR syntax error, try RING FORGET node [FORCE]")
		return
	}
	already, err := s.srv.cfg.Ring.Forget(string(args[2]), force)
	ringChanged(w, already, err)
}

// ringTransfers answers a map: figures of the change under way, and a map for each
// pair of nodes.
func ringTransfers(s *session, _ [][]byte, w *Reply) {
	t := s.srv.cfg.Ring.Transfers()
	w.Map(len(t.Fields) + 1)
	for _, f := range t.Fields {
		w.BulkString(f.Name)
		w.BulkString(f.Value)
	}
	w.BulkString("transfers")
	w.Array(len(t.Transfers))
	for _, x := range t.Transfers {
		writeFields(w,
			Field{"from", x.From.String()},
			Field{"to", x.To.String()},
			Field{"partitions", strconv.Itoa(x.Partitions)},
			Field{"done", strconv.Itoa(x.Done)},
			Field{"bytes", strconv.FormatInt(x.Bytes, 10)},
			Field{"bytes-total", strconv.FormatInt(x.BytesTotal, 10)},
			Field{"state", x.State})
	}
}
