package resp

import (
	"errors"
	"strings"

	"github.com/redynamo/redynamo/membership/ring"
)

// ErrRepairing is what Admin.Repair answers while the repair before goes on.
var ErrRepairing = errors.New("resp: a repair is under way")

// repairCommand is REPAIR and its twin RING REPAIR, whose words begin at word at.
func repairCommand(name string, arity int, at int) command {
	return command{
		name: name, arity: arity, flags: words("admin stale"), group: "server", since: "redynamo 0.1", complexity: "O(1)",
		summary: "Compares this node's partitions with their other owners now; STATUS tells how far that is",
		args:    []argument{{name: "what", kind: "string", optional: true, multiple: true}},
		run:     func(s *session, args [][]byte, w *Reply) { repair(s, args[at:], w) },
	}
}

// repair begins a repair of all slots, of a slot or of a range of them, or answers
// a map with the state of the last one.
func repair(s *session, words [][]byte, w *Reply) {
	if len(words) == 1 && strings.EqualFold(string(words[0]), "status") {
		writeFields(w, s.admin().RepairStatus()...)
		return
	}
	first, last, ok := slotRange(words)
	if !ok {
		w.Error("ERR syntax error, try REPAIR [first-slot [last-slot]] or REPAIR STATUS")
		return
	}
	switch err := s.admin().Repair(first, last); {
	case errors.Is(err, ErrRepairing):
		w.Error("ERR a repair is under way, see REPAIR STATUS")
	case err != nil:
		w.Fail(err)
	default:
		w.Simple("OK")
	}
}

// slotRange reads no word as all slots, one as a slot and two as a range.
func slotRange(words [][]byte) (first, last ring.Slot, ok bool) {
	if len(words) == 0 {
		return 0, ring.Slots - 1, true
	}
	if len(words) > 2 {
		return 0, 0, false
	}
	lo, ok1 := parseInt(words[0])
	hi, ok2 := parseInt(words[len(words)-1])
	if !ok1 || !ok2 || lo < 0 || lo > hi || hi >= ring.Slots {
		return 0, 0, false
	}
	return ring.Slot(lo), ring.Slot(hi), true
}
