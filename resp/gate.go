package resp

import (
	"strconv"

	"github.com/redynamo/redynamo/membership/ring"
)

// gate decides whether a command may be run now and returns the refusal, or "".
// The order is Redis's: what concerns the client before what concerns the data.
func (s *session) gate(row *command, args [][]byte) string {
	if users := s.srv.access.users.Load(); users != s.who.users && !s.renew(users) {
		return errNoAuth
	}
	if !s.guard.trust && !row.noAuth {
		return errNoAuth
	}
	if row.barred != "" && (row.allowed == nil || !row.allowed(s)) {
		return row.barred
	}
	if !s.free {
		if refused := s.denied(row, args); refused != "" {
			return refused
		}
	}
	if row.data && !s.admin().Ready() {
		return errLoading
	}
	if row.level > 0 && s.admin().Level() < row.level {
		return "ERR '" + row.full + "' is not served before every node runs a release that has it and RING FINALISE was asked for"
	}
	refused := ""
	if row.data || row.first > 0 && row.group == "pubsub" {
		refused = s.gateNames(row, args)
	}
	if refused == "" && !row.subscribed && s.narrow() {
		return errNarrow(row)
	}
	if refused == "" {
		refused = s.errMonitor(row)
	}
	return refused
}

// gateNames is the part of gate that concerns keys, and the names of shard channels,
// which have slots as keys have.
func (s *session) gateNames(row *command, args [][]byte) string {
	if row.keys != nil {
		return s.gateKeys(row.keys(args), args)
	}
	first, last, step := row.keyRange(len(args))
	if first == 0 {
		return ""
	}
	for i := first; i <= last; i += step {
		if len(args[i]) > s.limits().MaxKey {
			return errKeyTooLong
		}
	}
	if s.door() == Plain {
		return ""
	}
	return s.gateSlots(args, first, last, step)
}

// gateKeys is the key part of gate for commands whose keys must be asked for.
func (s *session) gateKeys(at []int, args [][]byte) string {
	for _, i := range at {
		if len(args[i]) > s.limits().MaxKey {
			return errKeyTooLong
		}
	}
	if s.door() == Plain || len(at) == 0 {
		return ""
	}
	slot := ring.SlotOf(args[at[0]])
	for _, i := range at[1:] {
		if ring.SlotOf(args[i]) != slot {
			return errCrossSlot
		}
	}
	return s.nudge(args[at[0]])
}

// gateSlots refuses keys of different slots and nudges.
func (s *session) gateSlots(args [][]byte, first, last, step int) string {
	if first < last {
		slot := ring.SlotOf(args[first])
		for i := first + step; i <= last; i += step {
			if ring.SlotOf(args[i]) != slot {
				return errCrossSlot
			}
		}
	}
	return s.nudge(args[first])
}

// nudge tells the client once, on its next keyed command after the map changed,
// where the key now belongs. That one MOVED is what makes clients fetch the map
// again: most of those measured do not look at it by themselves in useful time
// . Afterwards any key is served here as before.
func (s *session) nudge(key []byte) string {
	view := s.admin().View()
	if view == nil || view.Version == s.epoch || len(view.Runs) == 0 {
		return ""
	}
	s.epoch = view.Version
	s.srv.counts.nudges.Add(1)
	slot := ring.SlotOf(key)
	m := view.First(slot)
	return "MOVED " + strconv.Itoa(int(slot)) + " " + m.Host + ":" + strconv.Itoa(m.Cluster)
}
