package resp

import "errors"

// ErrMixed is RingAdmin's: the level of the cluster cannot be raised yet. Its text says
// because of whom.
var ErrMixed = errors.New("resp: the level cannot be raised")

// finaliseCommand is the subcommand that ends an upgrade.
func finaliseCommand(flags []string) command {
	return command{name: "finalise", arity: 2, flags: flags, run: ringFinalise,
		summary: "Raises the level of the cluster to what all members serve by now; then no older release can be put back."}
}

// ringFinalise ends an upgrade.
func ringFinalise(s *session, _ [][]byte, w *Reply) {
	already, err := s.srv.cfg.Ring.Finalise()
	if errors.Is(err, ErrMixed) {
		w.Error("MIXED " + oneLine(err))
		return
	}
	ringChanged(w, already, err)
}
