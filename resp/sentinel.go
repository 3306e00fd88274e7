package resp

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// Texts of Redis 7.0 for sentinels.
const (
	errNoMaster        = "ERR No such master with that name"
	errSentinelPublish = "ERR Only HELLO messages are accepted by Sentinel instances."
)

const (
	defaultSentinelName = "mymaster"
	// switchChannel is where clients of sentinels hear that the master is another.
	switchChannel = "+switch-master"
	// sentinelTick is how often the door looks whether its answer has changed.
	sentinelTick = 100 * time.Millisecond
)

// sentinelKept are the commands that the Sentinel door shares with the others.
var sentinelKept = [...]string{"ping", "hello", "auth", "quit", "reset", "client", "command", "info", "acl",
	"subscribe", "unsubscribe", "psubscribe", "punsubscribe"}

// rowsOf is the table of a door.
func rowsOf(door Door) []command {
	all := commands()
	if door != Sentinel {
		return all
	}
	kept := slices.DeleteFunc(all, func(c command) bool { return !slices.Contains(sentinelKept[:], c.name) })
	return append(kept, sentinelCommands()...)
}

func sentinelCommands() []command {
	of := arguments("master-name string")
	sub := func(name string, arity int, summary string, run handler, args ...argument) command {
		return command{name: name, arity: arity, flags: words("admin"), run: run, since: "2.8.4", group: "sentinel",
			complexity: "O(1)", summary: summary, args: args}
	}
	subs := []command{
		sub("ckquorum", 3, "Says whether there is a master.", sentinelQuorum, of...),
		sub("get-master-addr-by-name", 3, "Answers where the master is: the plain door of this node, or of another that lives.", sentinelAddress, of...),
		sub("help", 2, "Lists the subcommands.", nil),
		sub("master", 3, "Describes the master.", sentinelMaster, of...),
		sub("masters", 2, "Describes the one master.", sentinelMasters),
		sub("myid", 2, "Names this node.", clusterMyID),
		sub("replicas", 3, "Answers none: every node is a master.", sentinelNone, of...),
		sub("sentinels", 3, "Answers none: clients are given the others by their own settings.", sentinelNone, of...),
		sub("slaves", 3, "The same as REPLICAS.", sentinelNone, of...),
	}
	subs[2].run, subs[2].flags = helper("sentinel", subs), words("loading stale")
	rows := []command{
		{name: "sentinel", arity: -2, subcommands: subs, since: "2.8.4", summary: "Container of what clients ask a sentinel."},
		{name: "role", arity: 1, flags: words("noscript loading stale fast"), run: sentinelRole, categories: words("admin dangerous"),
			since: "2.8.12", summary: "Answers sentinel and the name of the master."},
		{name: "publish", arity: 3, flags: words("pubsub loading stale fast"), barred: errSentinelPublish, since: "2.0.0",
			summary: "Refused."},
	}
	for i := range rows {
		rows[i].group, rows[i].complexity = "sentinel", "O(1)"
	}
	return rows
}

// master is the node that the door names: this one if it can be, else the next by
// id that lives, so that all nodes do not name the same.
func (s *Server) master() (m Member, known bool) {
	v := s.cfg.Admin.View()
	if v == nil || len(v.Members) == 0 {
		return Member{}, false
	}
	if v.self >= 0 && s.cfg.Admin.Ready() {
		return v.Members[v.self], true
	}
	next, _ := slices.BinarySearchFunc(v.Members, v.Self, func(m Member, id ring.NodeID) int { return cmp.Compare(m.ID, id) })
	for i := range v.Members {
		if m := v.Members[(next+i)%len(v.Members)]; m.Alive && m.ID != v.Self {
			return m, true
		}
	}
	return Member{}, false
}

// WatchMaster tells the subscribers of a Sentinel door when it names another master,
// until ctx ends.
func (s *Server) WatchMaster(ctx context.Context) error {
	tick := time.NewTicker(sentinelTick)
	defer tick.Stop()
	was, known := s.master()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		m, now := s.master()
		if now && known && (m.Host != was.Host || m.Plain != was.Plain) {
			s.hub.Deliver(Message{Channel: []byte(switchChannel), Payload: []byte(strings.Join([]string{
				s.cfg.SentinelName, was.Host, strconv.Itoa(was.Plain), m.Host, strconv.Itoa(m.Plain)}, " "))})
		}
		if now {
			was, known = m, true
		}
	}
}

// named finds the master of that name, or answers that there is none.
func (s *session) named(name []byte, w *Reply) (m Member, ok bool) {
	if string(name) == s.srv.cfg.SentinelName {
		m, ok = s.srv.master()
	}
	if !ok {
		w.Error(errNoMaster)
	}
	return m, ok
}

func sentinelAddress(s *session, args [][]byte, w *Reply) {
	m, ok := s.srv.master()
	if !ok || string(args[2]) != s.srv.cfg.SentinelName {
		w.NullArray()
		return
	}
	w.Array(2)
	w.BulkString(m.Host)
	w.BulkString(strconv.Itoa(m.Plain))
}

func sentinelMaster(s *session, args [][]byte, w *Reply) {
	if m, ok := s.named(args[2], w); ok {
		s.describeMaster(m, w)
	}
}

func sentinelMasters(s *session, _ [][]byte, w *Reply) {
	m, ok := s.srv.master()
	if !ok {
		w.Array(0)
		return
	}
	w.Array(1)
	s.describeMaster(m, w)
}

// describeMaster answers the fields that clients look for. Times are those of a
// master that has just been heard of.
func (s *session) describeMaster(m Member, w *Reply) {
	fields := []Field{
		{"name", s.srv.cfg.SentinelName},
		{"ip", m.Host},
		{"port", strconv.Itoa(m.Plain)},
		{"runid", m.ID.Hex40()},
		{"flags", "master"},
		{"link-pending-commands", "0"},
		{"link-refcount", "1"},
		{"last-ping-sent", "0"},
		{"last-ok-ping-reply", "0"},
		{"last-ping-reply", "0"},
		{"down-after-milliseconds", "2000"},
		{"info-refresh", "0"},
		{"role-reported", "master"},
		{"role-reported-time", "0"},
		{"config-epoch", epochText(s.view().Epoch)},
		{"num-slaves", "0"},
		{"num-other-sentinels", "0"},
		{"quorum", "1"},
		{"failover-timeout", "2000"},
		{"parallel-syncs", "1"},
	}
	w.Map(len(fields))
	for _, f := range fields {
		w.BulkString(f.Name)
		w.BulkString(f.Value)
	}
}

func sentinelNone(s *session, args [][]byte, w *Reply) {
	if _, ok := s.named(args[2], w); ok {
		w.Array(0)
	}
}

func sentinelQuorum(s *session, args [][]byte, w *Reply) {
	if _, ok := s.named(args[2], w); ok {
		w.Simple("OK 1 usable Sentinels. Quorum and failover authorization can be reached")
	}
}

func sentinelRole(s *session, _ [][]byte, w *Reply) {
	w.Array(2)
	w.BulkString("sentinel")
	w.Array(1)
	w.BulkString(s.srv.cfg.SentinelName)
}

func infoSentinel(s *session) []Field {
	m, ok := s.srv.master()
	out := []Field{
		{"sentinel_masters", "1"},
		{"sentinel_tilt", "0"},
		{"sentinel_tilt_since_seconds", "-1"},
		{"sentinel_running_scripts", "0"},
		{"sentinel_scripts_queue_length", "0"},
		{"sentinel_simulate_failure_flags", "0"},
	}
	if !ok {
		out[0].Value = "0"
		return out
	}
	return append(out, Field{"master0", "name=" + s.srv.cfg.SentinelName + ",status=ok,address=" +
		net.JoinHostPort(m.Host, strconv.Itoa(m.Plain)) + ",slaves=0,sentinels=1"})
}
