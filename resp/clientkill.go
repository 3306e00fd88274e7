package resp

// killFilter says which connections CLIENT KILL means; nil and zero fields do not
// restrict.
type killFilter struct {
	id          int64
	addr, laddr []byte
	user        []byte
	kind        string
	keepSelf    bool
}

func clientKill(s *session, args [][]byte, w *Reply) {
	if len(args) == 3 { // the old form: one address, or an error
		killed := s.srv.kill(killFilter{addr: args[2]}, s)
		if killed == 0 {
			w.Error("ERR No such client")
			return
		}
		w.Simple("OK")
		return
	}
	f, refused := parseKill(s.srv.access, args[2:])
	if refused != "" {
		w.Error(refused)
		return
	}
	w.Int(s.srv.kill(f, s))
}

func parseKill(a *Access, args [][]byte) (f killFilter, refused string) {
	f.keepSelf = true
	for ; len(args) > 0; args = args[2:] {
		if len(args) == 1 { // only now: what stands before it is judged first
			return f, errSyntax
		}
		value := args[1]
		switch {
		case equalFold(args[0], "id"):
			id, ok := parseInt(value)
			if !ok || id < 1 {
				return f, "ERR client-id should be greater than 0"
			}
			f.id = id
		case equalFold(args[0], "type"):
			kind := clientType(value)
			if kind == "" {
				return f, "ERR Unknown client type '" + clip(value, shownBytes) + "'"
			}
			f.kind = kind
		case equalFold(args[0], "addr"):
			f.addr = value
		case equalFold(args[0], "laddr"):
			f.laddr = value
		case equalFold(args[0], "user"):
			if !a.knows(value) {
				return f, "ERR No such user '" + clip(value, shownBytes) + "'"
			}
			f.user = value
		case equalFold(args[0], "skipme") && equalFold(value, "yes"):
			f.keepSelf = true
		case equalFold(args[0], "skipme") && equalFold(value, "no"):
			f.keepSelf = false
		default:
			return f, errSyntax
		}
	}
	return f, ""
}

// kill closes the connections that f means and returns their number. The one
// that asks gets its reply first.
func (s *Server) kill(f killFilter, asking *session) (killed int64) {
	for _, c := range s.clients() {
		switch {
		case f.kind != "" && c.kind() != f.kind, f.id != 0 && c.id != f.id,
			f.addr != nil && c.addr != string(f.addr),
			f.user != nil && c.user.Load().Name() != string(f.user),
			f.laddr != nil && c.laddr != string(f.laddr),
			f.keepSelf && c == asking.client:
			continue
		case c == asking.client:
			asking.closing = true
		default:
			c.kill()
		}
		killed++
	}
	return killed
}
