package resp

// runShutdown stops this node in order, as a signal would: commands under way end,
// and what other nodes lack is handed to them or left as hints. There is nothing to
// save: what was acknowledged is on disk. So SAVE, NOSAVE, NOW and FORCE only are
// understood; and a stop that has begun cannot be called off.
func runShutdown(s *session, args [][]byte, w *Reply) {
	abort, save, nosave, other := false, false, false, false
	for _, arg := range args[1:] {
		switch {
		case foldEqual(arg, "NOSAVE"):
			nosave = true
		case foldEqual(arg, "SAVE"):
			save = true
		case foldEqual(arg, "NOW"), foldEqual(arg, "FORCE"):
			other = true
		case foldEqual(arg, "ABORT"):
			abort = true
		default:
			w.Error(errSyntax)
			return
		}
	}
	switch {
	case save && nosave, abort && (save || nosave || other):
		w.Error(errSyntax)
	case abort:
		w.Error("ERR No shutdown in progress.")
	case s.srv.cfg.Stop == nil:
		w.Error("ERR Errors trying to SHUTDOWN. Check logs.")
	default:
		s.srv.cfg.Logger.Warn("a client asked this node to stop", "client", s.client.addr)
		s.closing = true // Redis answers nothing either
		s.srv.cfg.Stop()
	}
}

func shutdownArguments() []argument {
	return []argument{
		choice("nosave_save", option("nosave", "pure-token", "NOSAVE"), option("save", "pure-token", "SAVE")),
		option("now", "pure-token", "NOW"), option("force", "pure-token", "FORCE"), option("abort", "pure-token", "ABORT"),
	}
}
