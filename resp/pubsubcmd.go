package resp

import (
	"maps"
	"slices"

	"github.com/redynamo/redynamo/resp/acl"
	"github.com/redynamo/redynamo/resp/glob"
)

// Refusals of ours: Redis has no such limits.
const (
	errChannelTooLong  = "ERR channel name or pattern is longer than the limit of this server"
	errMessageTooLong  = "ERR message is longer than the limit of this server"
	errSubscriptions   = "ERR too many subscriptions on this connection"
	errSubscribersFull = "ERR too many subscriptions on this server"
)

// publishLevel is the level of the cluster from which on every node knows messages.
const publishLevel = 2

func pubsubCommands() []command {
	subscriber, publisher := words("pubsub noscript loading stale"), words("pubsub loading stale fast")
	several := func(name, kind string) []argument {
		return []argument{{name: name, kind: kind, multiple: true}}
	}
	perhaps := func(name, kind string) []argument {
		return []argument{{name: name, kind: kind, optional: true, multiple: true}}
	}
	rows := []command{
		{name: "psubscribe", arity: -2, flags: subscriber, run: begins(toPattern), since: "2.0.0",
			complexity: "O(N) with N = patterns", args: several("pattern", "pattern"),
			summary: "Takes the messages of all channels that match, at most once each."},
		{name: "publish", arity: 3, flags: publisher, run: publishes(false), since: "2.0.0", level: publishLevel,
			complexity: "O(N+M) with N = subscribers, M = patterns", args: arguments("channel string", "message string"),
			summary: "Sends a message to the subscribers on all live nodes, at most once; answers how many this node has."},
		{name: "punsubscribe", arity: -1, flags: subscriber, run: ends(toPattern), since: "2.0.0",
			complexity: "O(N) with N = patterns", args: perhaps("pattern", "pattern"),
			summary: "Ends subscriptions to patterns."},
		{name: "spublish", arity: 3, flags: publisher, run: publishes(true), since: "7.0.0", level: publishLevel,
			complexity: "O(N) with N = subscribers", args: arguments("shardchannel string", "message string"),
			first: 1, last: 1, step: 1, keySpec: words("not_key"),
			summary: "As PUBLISH, to a shard channel: at the cluster door with the slot of its name."},
		{name: "ssubscribe", arity: -2, flags: subscriber, run: begins(toShard), since: "7.0.0",
			complexity: "O(N) with N = channels", args: several("shardchannel", "string"),
			first: 1, last: -1, step: 1, keySpec: words("not_key"),
			summary: "Takes the messages of shard channels, at most once each; any node serves any slot."},
		{name: "subscribe", arity: -2, flags: subscriber, run: begins(toChannel), since: "2.0.0",
			complexity: "O(N) with N = channels", args: several("channel", "string"),
			summary: "Takes the messages of channels, at most once each."},
		{name: "sunsubscribe", arity: -1, flags: subscriber, run: ends(toShard), since: "7.0.0",
			complexity: "O(N) with N = channels", args: perhaps("shardchannel", "string"),
			first: 1, last: -1, step: 1, keySpec: words("not_key"),
			summary: "Ends subscriptions to shard channels."},
		{name: "unsubscribe", arity: -1, flags: subscriber, run: ends(toChannel), since: "2.0.0",
			complexity: "O(N) with N = channels", args: perhaps("channel", "string"),
			summary: "Ends subscriptions to channels."},
		{name: "pubsub", arity: -2, summary: "Container of commands about subscriptions.", since: "2.8.0",
			complexity: "Depends on the subcommand.", subcommands: pubsubSubcommands()},
	}
	for i := range rows {
		rows[i].group = "pubsub"
		rows[i].flags = slices.Clone(rows[i].flags)
		if rows[i].subcommands == nil {
			rows[i].categories = words("pubsub")
			rows[i].pushes = true
			rows[i].subscribed = !rows[i].has("fast")
			rows[i].channels = heard[rows[i].name]
		}
	}
	return rows
}

// heard says of which commands the channels are judged; to end a subscription needs no
// permission.
var heard = map[string]channelArgs{"subscribe": allChannels, "ssubscribe": allChannels, "psubscribe": allPatterns,
	"publish": oneChannel, "spublish": oneChannel}

func pubsubSubcommands() []command {
	row := func(name string, arity int, since, summary string, run handler, args ...argument) command {
		return command{name: name, arity: arity, flags: words("pubsub loading stale"), categories: words("pubsub"),
			group: "pubsub", since: since, complexity: "O(N)", summary: summary, run: run, args: args}
	}
	pattern := argument{name: "pattern", kind: "pattern", optional: true}
	channels := func(name string) argument {
		return argument{name: name, kind: "string", optional: true, multiple: true}
	}
	rows := []command{
		row("channels", -2, "2.8.0", "Names the channels with subscribers on this node.", channelsOf(toChannel), pattern),
		row("help", 2, "6.2.0", "Lists the subcommands.", nil),
		row("numpat", 2, "2.8.0", "Counts the patterns subscribed to on this node.", pubsubNumPat),
		row("numsub", -2, "2.8.0", "Counts the subscribers of channels on this node.", countsOf(toChannel), channels("channel")),
		row("shardchannels", -2, "7.0.0", "Names the shard channels with subscribers on this node.", channelsOf(toShard), pattern),
		row("shardnumsub", -2, "7.0.0", "Counts the subscribers of shard channels on this node.", countsOf(toShard), channels("shardchannel")),
	}
	help := &rows[1]
	help.flags, help.categories, help.run = words("loading stale"), nil, helper("pubsub", rows)
	return rows
}

// narrow reports whether the connection speaks RESP2 and has subscriptions:
// messages and replies could not be told apart, so few commands are allowed.
func (s *session) narrow() bool {
	return s.sub != nil && s.reply.proto == 2 && s.sub.total() > 0
}

func errNarrow(row *command) string {
	return "ERR Can't execute '" + row.full +
		"': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
}

// handOver queues the replies there are where messages are queued, so that what
// comes next stands behind them.
func (s *session) handOver() {
	if s.sub == nil {
		return
	}
	s.countFailed()
	s.sub.out.push(s.reply.buf, s.reply.proto)
	s.owed += len(s.reply.buf)
	s.reply.buf = nil
}

// subscriber makes the connection one that may be sent messages.
func (s *session) subscriber() *subscriber {
	if s.sub == nil {
		s.sub = newSubscriber(newOutbox(s.srv, s.client.conn, s.reply.proto))
		if s.tx.running {
			s.sub.out.hold()
		}
		s.client.sub.Store(s.sub)
		s.handOver()
	}
	return s.sub
}

// subscriptionFault is why names cannot be subscribed to, or "".
func (s *session) subscriptionFault(t topic, names [][]byte) string {
	for _, name := range names {
		if len(name) > s.limits().MaxChannel {
			return errChannelTooLong
		}
	}
	fresh, most, have := len(names), s.limits().MaxSubscriptions, 0
	if t == toPattern {
		most = s.limits().MaxPatterns
	}
	if s.sub != nil {
		fresh, _ = s.sub.fresh(t, names)
		have = len(s.sub.names[t])
		if t != toPattern {
			have = len(s.sub.names[toChannel]) + len(s.sub.names[toShard])
		}
	}
	if have+fresh > most {
		return errSubscriptions
	}
	return ""
}

// begins is SUBSCRIBE and its like: all of the names or, past a limit, none.
func begins(t topic) handler {
	return func(s *session, args [][]byte, w *Reply) {
		names := args[1:]
		if fault := s.subscriptionFault(t, names); fault != "" {
			w.Error(fault)
			return
		}
		sub, h := s.subscriber(), s.srv.hub
		_, bytes := sub.fresh(t, names)
		if !h.names.take(bytes) {
			w.Error(errSubscribersFull)
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if !s.mayHear(t, names) { // what closes those who may not has looked before
			h.names.give(bytes)
			w.Error(denials[acl.NoChannel].text)
			return
		}
		for _, name := range names {
			if h.addLocked(sub, t, string(name)) {
				bytes -= int64(len(name) + subscriptionBytes)
			}
			confirm(w, topicWords[t].begun, func() { w.Bulk(name) }, sub.told(t))
		}
		h.names.give(bytes) // of names that are there twice
		s.guard.patient = true
		s.handOver() // before anybody can publish
	}
}

// ends is UNSUBSCRIBE and its like.
func ends(t topic) handler {
	return func(s *session, args [][]byte, w *Reply) {
		sub, h, names := s.subscriber(), s.srv.hub, args[1:]
		if len(names) == 0 {
			for _, name := range slices.Sorted(maps.Keys(sub.names[t])) {
				names = append(names, []byte(name))
			}
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(names) == 0 {
			confirm(w, topicWords[t].ended, w.Null, sub.told(t))
		}
		for _, name := range names {
			h.removeLocked(sub, t, string(name))
			confirm(w, topicWords[t].ended, func() { w.Bulk(name) }, sub.told(t))
		}
		s.guard.patient = sub.total() > 0 || s.monitoring()
		s.handOver()
	}
}

// confirm tells of a subscription that has begun or ended.
func confirm(w *Reply, word string, name func(), left int) {
	w.Push(3)
	w.BulkString(word)
	name()
	w.Int(int64(left))
}

// unsubscribe ends all subscriptions without a word.
func (s *session) unsubscribe() {
	if s.sub != nil {
		s.srv.hub.leave(s.sub)
		s.guard.patient = false
	}
}

// publishes is PUBLISH or SPUBLISH. What a node answers is what it knows: the
// receivers on other nodes are not waited for.
func publishes(shard bool) handler {
	return func(s *session, args [][]byte, w *Reply) {
		switch {
		case len(args[1]) > s.limits().MaxChannel:
			w.Error(errChannelTooLong)
		case len(args[2]) > s.limits().MaxMessage:
			w.Error(errMessageTooLong)
		default:
			w.Int(s.srv.hub.Publish(Message{Shard: shard, Channel: args[1], Payload: args[2]}))
		}
	}
}

func channelsOf(t topic) handler {
	return func(s *session, args [][]byte, w *Reply) {
		var like *glob.Pattern
		switch {
		case len(args) > 3:
			w.Error(subcommandText(clip(args[1], shownBytes), "PUBSUB"))
			return
		case len(args) == 3:
			like = glob.Compile(args[2])
		}
		names, err := s.srv.hub.named(t, like)
		if err != nil {
			w.Error(errPatternCost)
			return
		}
		w.Array(len(names))
		for _, name := range names {
			w.Bulk([]byte(name))
		}
	}
}

func countsOf(t topic) handler {
	return func(s *session, args [][]byte, w *Reply) {
		w.Array(2 * (len(args) - 2)) // so Redis, in RESP3 too
		for _, name := range args[2:] {
			w.Bulk(name)
			w.Int(int64(s.srv.hub.subscribers(t, name)))
		}
	}
}

func pubsubNumPat(s *session, _ [][]byte, w *Reply) { w.Int(int64(s.srv.hub.size(toPattern))) }
