package resp

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/redynamo/redynamo/resp/glob"
)

// params are the settings that CONFIG SET may change while the server runs, and
// what CONFIG GET shows besides.
type params struct {
	clients atomic.Int64
	// slowAfter is slowlog-log-slower-than in microseconds, slowMax
	// slowlog-max-len, latencyMS latency-monitor-threshold.
	slowAfter, slowMax, latencyMS atomic.Int64
	access                        *Access // has requirepass, protected-mode and acllog-max-len
	hub                           *Hub    // has the events that the node tells
	fixed                         []Field // by name
}

// load takes the initial values. Clients ask for many parameters of Redis; those
// that mean something here tell the truth, the rest what Redis has when the
// feature is off.
func (p *params) load(cfg *Config, access *Access) {
	p.access = access
	p.clients.Store(int64(cfg.Limits.MaxClients))
	p.slowAfter.Store(defaultSlowAfter)
	p.slowMax.Store(defaultSlowlog)
	p.hub = cfg.Hub
	openPort, tlsPort := cfg.Port, 0
	if cfg.TLS {
		openPort, tlsPort = 0, cfg.Port
	}
	p.fixed = append([]Field{
		{"acl-pubsub-default", "resetchannels"},
		{"aclfile", ""}, // paths of the server are nobody's business
		{"activerehashing", "yes"},
		{"appendfsync", "always"},
		{"appendonly", "yes"},
		{"bind", ""},
		{"client-output-buffer-limit", fmt.Sprintf("normal 0 0 0 slave 0 0 0 pubsub %d %d %d",
			cfg.Limits.PushHard, cfg.Limits.PushSoft, int(cfg.Limits.PushSoftTime.Seconds()))},
		{"client-query-buffer-limit", strconv.Itoa(cfg.Limits.MaxCommand)},
		{"cluster-allow-reads-when-down", "yes"},
		{"cluster-enabled", yesNo(cfg.Door == Cluster)},
		{"cluster-require-full-coverage", "no"},
		{"databases", "1"},
		{"dir", ""}, // the same
		{"enable-debug-command", string(access.debug)},
		{"enable-module-command", "no"},
		{"hz", "10"},
		{"io-threads", "1"},
		{"latency-tracking", "yes"},
		{"lua-time-limit", "5000"},
		{"maxmemory", "0"},
		{"maxmemory-policy", "noeviction"},
		{"maxmemory-samples", "5"},
		{"port", strconv.Itoa(openPort)},
		{"proto-max-bulk-len", strconv.Itoa(cfg.Limits.MaxBulk)},
		{"replica-read-only", "yes"},
		{"save", ""},
		{"slave-read-only", "yes"},
		{"tcp-keepalive", "15"},
		{"tls-port", strconv.Itoa(tlsPort)},
		{"timeout", strconv.Itoa(int(cfg.Limits.IdleTimeout.Seconds()))},
	}, cfg.Params...)
	slices.SortStableFunc(p.fixed, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
}

func (p *params) maxClients() int { return int(min(p.clients.Load(), math.MaxInt)) }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// list gives every parameter by name. The password is never shown.
func (p *params) list() []Field {
	all := append(slices.Clone(p.fixed),
		Field{"protected-mode", yesNo(p.access.protected.Load())},
		Field{"requirepass", ""}, Field{"notify-keyspace-events", p.hub.Events().String()})
	for _, n := range p.numbers() {
		all = append(all, Field{n.name, strconv.FormatInt(n.at.Load(), 10)})
	}
	slices.SortStableFunc(all, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// A number is a parameter that CONFIG SET may change to one of least to most.
type number struct {
	name        string
	at          *atomic.Int64
	least, most int64
}

func (p *params) numbers() [5]number {
	return [...]number{
		p.access.number(),
		{"latency-monitor-threshold", &p.latencyMS, 0, math.MaxInt64},
		{"maxclients", &p.clients, 1, math.MaxUint32},
		{"slowlog-log-slower-than", &p.slowAfter, -1, math.MaxInt64},
		{"slowlog-max-len", &p.slowMax, 0, maxSlowlog},
	}
}

// refusal returns the reason why a parameter cannot be set to value, or "".
// Setting a parameter to the value it has is always allowed.
func (p *params) refusal(name, value string) string {
	switch name {
	case "requirepass":
		return ""
	case "protected-mode":
		if !strings.EqualFold(value, "yes") && !strings.EqualFold(value, "no") {
			return "argument must be 'yes' or 'no'"
		}
		return ""
	case "notify-keyspace-events":
		if _, ok := ParseEvents(value); !ok {
			return errEvents
		}
		return ""
	}
	for _, n := range p.numbers() {
		if n.name != name {
			continue
		}
		v, ok := parseInt([]byte(value))
		if !ok {
			return "argument couldn't be parsed into an integer"
		}
		if v < n.least || v > n.most {
			return fmt.Sprintf("argument must be between %d and %d inclusive", n.least, n.most)
		}
		return ""
	}
	for _, f := range p.list() {
		if f.Name == name && f.Value != value {
			return "can't set immutable config"
		}
	}
	return ""
}

// set changes one parameter, as asking wants. Requires: refusal has no reason against
// it.
func (p *params) set(asking *session, name, value string) error {
	switch name {
	case "requirepass":
		return p.access.setPassword(asking, value)
	case "protected-mode":
		p.access.protected.Store(strings.EqualFold(value, "yes"))
	case "notify-keyspace-events":
		e, _ := ParseEvents(value)
		p.hub.SetEvents(e)
	}
	for _, n := range p.numbers() {
		if n.name == name {
			v, _ := parseInt([]byte(value))
			n.at.Store(v)
		}
	}
	return nil
}

func (p *params) known(name string) bool {
	return slices.ContainsFunc(p.list(), func(f Field) bool { return f.Name == name })
}

func configSubcommands() []command {
	admin := words("admin noscript loading stale")
	rows := []command{
		{name: "get", arity: -3, flags: admin, run: configGet, since: "2.0.0", summary: "Answers parameters by pattern.",
			args: arguments("parameter string...")},
		{name: "help", arity: 2, flags: words("loading stale"), since: "5.0.0", summary: "Lists the subcommands."},
		{name: "resetstat", arity: 2, flags: admin, run: configResetStat, since: "2.0.0", summary: "Sets the counts of INFO to 0."},
		{name: "rewrite", arity: 2, flags: admin, run: configRewrite, since: "2.8.0", summary: "Refused: settings come from flags and the configuration file."},
		{name: "set", arity: -4, flags: admin, run: configSet, since: "2.0.0", summary: "Changes maxclients, slowlog-log-slower-than, slowlog-max-len or latency-monitor-threshold of this door, requirepass, protected-mode, acllog-max-len or notify-keyspace-events of this node.",
			tips: words("request_policy:all_nodes response_policy:all_succeeded"), args: arguments("parameter string", "value string")},
	}
	rows[1].run = helper("config", rows)
	for i := range rows {
		rows[i].group, rows[i].complexity = "server", "O(N) with N = parameters"
	}
	return rows
}

func configGet(s *session, args [][]byte, w *Reply) {
	var found []Field
	all := s.srv.params.list()
	for _, arg := range args[2:] {
		literal := !bytes.ContainsAny(arg, "[*?")
		pattern := glob.Compile(fold256(arg))
		for _, f := range all {
			match := literal && equalFold(arg, f.Name)
			if !literal {
				ok, err := pattern.Match([]byte(f.Name))
				match = ok && err == nil
			}
			if !match || slices.ContainsFunc(found, func(g Field) bool { return strings.EqualFold(f.Name, g.Name) }) {
				continue
			}
			if literal { // the name is shown as it was typed
				f.Name = string(arg)
			}
			found = append(found, f)
		}
	}
	w.Map(len(found))
	for _, f := range found {
		w.BulkString(f.Name)
		w.BulkString(f.Value)
	}
}

// fold256 is a pattern in lower case, cut at a length no parameter has.
func fold256(b []byte) []byte {
	return []byte(strings.ToLower(string(b[:min(len(b), 256)])))
}

func configSet(s *session, args [][]byte, w *Reply) {
	pairs := args[2:]
	if len(pairs)%2 != 0 {
		w.Error(errSyntax)
		return
	}
	var names []string
	for i := 0; i < len(pairs); i += 2 {
		name := string(fold256(pairs[i]))
		switch {
		case !s.srv.params.known(name):
			w.Error("ERR Unknown option or number of arguments for CONFIG SET - '" + clip(pairs[i], shownBytes) + "'")
			return
		case slices.Contains(names, name):
			w.Error("ERR CONFIG SET failed (possibly related to argument '" + clip(pairs[i], shownBytes) + "') - duplicate parameter")
			return
		}
		names = append(names, name)
	}
	for i, name := range names {
		if refused := s.srv.params.refusal(name, string(pairs[2*i+1])); refused != "" {
			w.Error("ERR CONFIG SET failed (possibly related to argument '" + name + "') - " + refused)
			return
		}
	}
	for i, name := range names {
		if err := s.srv.params.set(s, name, string(pairs[2*i+1])); err != nil {
			w.Error("ERR CONFIG SET failed (possibly related to argument '" + name + "') - " + err.Error())
			return
		}
	}
	w.Simple("OK")
}

func configResetStat(s *session, _ [][]byte, w *Reply) {
	s.srv.resetCounts()
	w.Simple("OK")
}

func configRewrite(_ *session, _ [][]byte, w *Reply) {
	w.Error("ERR The server is running without a config file")
}
