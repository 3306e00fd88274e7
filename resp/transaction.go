package resp

import (
	"bytes"
	"slices"
	"strings"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// A transaction is what a connection has between WATCH or MULTI and EXEC.
//
// What it gives: the commands are run one behind the other on one connection, with
// nothing of that connection between them, or none of them is. What it does not
// give is isolation: other connections, at this node or another, are served
// meanwhile, and may see a part of the batch done. WATCH compares what quorum reads
// find when it comes and when EXEC comes; a write between that second read and the
// batch goes unnoticed, and so does one that the read quorum has not heard of.
type transaction struct {
	open    bool // MULTI came
	spoiled bool // a command was refused: EXEC refuses them all
	running bool // EXEC is at it: messages wait, or they would stand inside its reply
	queue   []queuedCommand
	watched []watchedKey
	charged int64 // bytes taken from the server's budget
}

// changes reports whether a command of the batch does.
func (t *transaction) changes() bool {
	return slices.ContainsFunc(t.queue, func(c queuedCommand) bool { return c.row.changes() })
}

// A queuedCommand waits for EXEC; its arguments are copies.
type queuedCommand struct {
	row  *command
	args [][]byte
}

// A watchedKey is a key with what WATCH found of it.
type watchedKey struct {
	key  []byte
	seen version.Glimpse
}

const (
	// queuedBytes and watchedBytes are what a queued command, each of its
	// arguments, and a watched key take besides their bytes.
	queuedBytes    = 32
	queuedArgBytes = 24
	watchedBytes   = 24

	errAborted     = "EXECABORT Transaction discarded because of previous errors."
	errQueueLong   = "ERR too many commands in the transaction for the limit of this server"
	errQueueBytes  = "ERR the transaction is larger than the limit of this server"
	errQueueTotal  = "ERR the transactions of all clients together are larger than the limit of this server"
	errWatchedMany = "ERR too many watched keys for the limit of this server"
)

// transactionCommands queue commands and run them in one go.
func transactionCommands() []command {
	plain := words("noscript loading stale fast allow_busy")
	rows := []command{
		{name: "multi", arity: 1, flags: plain, run: runMulti, atOnce: true, since: "1.2.0", complexity: "O(1)",
			summary: "Queue the commands that follow, for EXEC to run in order"},
		{name: "exec", arity: 1, flags: words("noscript loading stale skip_slowlog"), batch: true, atOnce: true, since: "1.2.0",
			complexity: "Depends on the commands queued.",
			summary:    "Run the commands queued behind MULTI in order, all or none; there is no isolation: others may write in between and see a part"},
		{name: "discard", arity: 1, flags: plain, run: runDiscard, atOnce: true, since: "2.0.0", complexity: complexityN,
			summary: "Forget the commands queued behind MULTI, and the keys watched"},
		{name: "watch", arity: -2, flags: plain, first: 1, last: -1, step: 1, keySpec: words("RO"), run: runWatch, atOnce: true, reads: true,
			since: "2.2.0", complexity: complexityN, args: arguments("key key..."),
			summary: "Let EXEC do nothing if a key changed by then, as quorum reads show it; a write between that read and the batch goes unnoticed"},
		{name: "unwatch", arity: 1, flags: plain, run: runUnwatch, since: "2.2.0", complexity: "O(1)",
			summary: "Forget the keys watched"},
	}
	for i := range rows {
		rows[i].group, rows[i].categories = "transactions", words("transaction")
		rows[i].flags = append([]string(nil), rows[i].flags...) // prepare sorts them in place
	}
	return rows
}

func runMulti(s *session, _ [][]byte, w *Reply) {
	if s.tx.open {
		w.Error("ERR MULTI calls can not be nested")
		return
	}
	s.tx.open = true
	s.client.queued.Store(1)
	w.Simple("OK")
}

func runDiscard(s *session, _ [][]byte, w *Reply) {
	if !s.tx.open {
		w.Error("ERR DISCARD without MULTI")
		return
	}
	s.endTransaction()
	w.Simple("OK")
}

func runUnwatch(s *session, _ [][]byte, w *Reply) {
	s.unwatch()
	w.Simple("OK")
}

// endTransaction brings the connection back to where neither MULTI nor WATCH
// came.
func (s *session) endTransaction() {
	s.srv.queued.give(s.tx.charged)
	s.tx = transaction{}
	s.client.queued.Store(0)
	s.client.queuedBytes.Store(0)
}

// unwatch forgets the watched keys.
func (s *session) unwatch() {
	back := int64(0)
	for i := range s.tx.watched {
		back += s.tx.watched[i].bytes()
	}
	s.tx.watched = nil
	s.tx.charged -= back
	s.srv.queued.give(back)
}

func (k *watchedKey) bytes() int64 { return int64(len(k.key) + watchedBytes + k.seen.Bytes()) }

// charge takes n bytes for the transaction, or returns the refusal.
func (s *session) charge(n int64) string {
	switch {
	case s.tx.charged+n > s.limits().MaxQueuedBytes:
		return errQueueBytes
	case !s.srv.queued.take(n):
		return errQueueTotal
	}
	s.tx.charged += n
	return ""
}

// enqueue keeps a command for EXEC, or returns the refusal. A batch that EXEC will
// refuse is not added to.
func (s *session) enqueue(row *command, args [][]byte) (refused string) {
	if s.tx.spoiled {
		return ""
	}
	if len(s.tx.queue) >= s.limits().MaxQueued {
		return errQueueLong
	}
	n := int64(queuedBytes + queuedArgBytes*len(args))
	for _, arg := range args {
		n += int64(len(arg))
	}
	if refused = s.charge(n); refused != "" {
		return refused
	}
	s.tx.queue = append(s.tx.queue, queuedCommand{row, cloneArgs(args)})
	s.client.queued.Add(1)
	s.client.queuedBytes.Add(n)
	return ""
}

// cloneArgs copies arguments into memory of their own: as they are they pin all
// that arrived together with them, which nobody would have counted.
func cloneArgs(args [][]byte) [][]byte {
	n := 0
	for _, arg := range args {
		n += len(arg)
	}
	own, room := make([][]byte, len(args)), make([]byte, 0, n)
	for i, arg := range args {
		at := len(room)
		room = append(room, arg...)
		own[i] = room[at:len(room):len(room)]
	}
	return own
}

func (s *session) acknowledge(mute bool) {
	at := s.reply.begin(s.limits().MaxReply)
	s.reply.Simple("QUEUED")
	if mute {
		s.reply.buf = s.reply.buf[:at]
	}
	if len(s.reply.buf) >= s.limits().FlushBytes {
		_ = s.flush() // sets closing
	}
}

// spoil notes that a command was refused and returns what to answer. An EXEC that
// is refused ends the transaction.
func (s *session) spoil(row *command, text string) string {
	if row != nil && row.batch {
		s.endTransaction()
		return abortedBy(text)
	}
	s.tx.spoiled = s.tx.open
	return text
}

// abortedBy says why nothing of a batch was run. Its first word is none that
// clients repeat by themselves; they would have to begin with WATCH.
func abortedBy(text string) string {
	return "EXECABORT Transaction discarded because of: " + strings.TrimPrefix(text, "ERR ")
}

// runWatch notes what a quorum knows of each key. It waits for the answers: what
// the connection reads afterwards must not be older than what it watches.
func runWatch(s *session, args [][]byte, w *Reply) {
	if s.tx.open {
		w.Error("ERR WATCH inside MULTI is not allowed")
		return
	}
	keys := s.unwatched(distinct(args[1:]))
	if len(s.tx.watched)+len(keys) > s.limits().MaxWatched {
		w.Error(errWatchedMany)
		return
	}
	fresh := make([]watchedKey, 0, len(keys))
	bytesOf := int64(0)
	f := s.glimpses(keys, func(r version.Record) {
		k := watchedKey{bytes.Clone(keys[len(fresh)]), r.Glimpse(s.now().UnixMilli())}
		fresh = append(fresh, k)
		bytesOf += k.bytes()
	})
	if err := f.launch().collect(w); err != nil {
		w.Fail(err)
		return
	}
	if refused := s.charge(bytesOf); refused != "" {
		w.Error(refused)
		return
	}
	s.tx.watched = append(s.tx.watched, fresh...)
	w.Simple("OK")
}

// unwatched leaves out the keys that are watched already: what counts is how they
// were the first time.
func (s *session) unwatched(keys [][]byte) [][]byte {
	if len(s.tx.watched) == 0 {
		return keys
	}
	known := make(map[string]struct{}, len(s.tx.watched))
	for i := range s.tx.watched {
		known[string(s.tx.watched[i].key)] = struct{}{}
	}
	var out [][]byte
	for _, k := range keys {
		if _, ok := known[string(k)]; !ok {
			out = append(out, k)
		}
	}
	return out
}

// glimpses reads keys and shows their records in order.
func (s *session) glimpses(keys [][]byte, show func(r version.Record)) *fan {
	return &fan{
		n:     len(keys),
		begin: func(i int) *call { return s.beginRead(keys[i], nil, nil) },
		fold: func(c *call, _ *Reply) {
			s.observe(c.read.Record.MaxHLC())
			show(c.read.Record)
		},
	}
}

// watchBroken reads the watched keys again.
func (s *session) watchBroken() (broken bool, err error) {
	watched := s.tx.watched
	keys := make([][]byte, len(watched))
	for i := range watched {
		keys[i] = watched[i].key
	}
	i, now := 0, s.now().UnixMilli()
	err = s.glimpses(keys, func(r version.Record) {
		broken = broken || watched[i].seen.Changed(r, now)
		i++
	}).launch().collect(&s.reply)
	return broken, err
}

// exec answers EXEC. The commands of the batch go through the pipeline like any
// others, so that those over different keys are under way together while those over
// one key keep their order, and their replies follow the header as they come. A
// batch that has begun is run to its end even if the client leaves; only the end of
// the server cuts it short. The time booked for EXEC is that of the check.
func (s *session) exec(row *command, args [][]byte, mute bool) {
	began := s.tick
	at := s.reply.begin(s.limits().MaxReply)
	s.client.last.Store(row)
	if !s.tx.open { // what is watched stays so
		s.reply.Error("ERR EXEC without MULTI")
		s.answered(row, args, began, at, mute)
		return
	}
	s.tx.running = true
	if s.sub != nil {
		s.sub.out.hold() // before the header, which may leave at once
	}
	may := s.mayExec(&s.reply)
	batch := s.tx.queue
	if may {
		s.reply.Array(len(batch))
		s.unwatch()
	}
	s.answered(row, args, began, at, mute)
	for i := 0; may && i < len(batch); i++ {
		if s.srv.base.Err() != nil {
			s.closing = true // the client must not take the rest for answers
			break
		}
		// CLIENT REPLY and CLIENT KILL in the batch silence what follows them.
		mute := s.skipping || s.replyOff || s.closing
		if refused := s.deniedNow(batch[i].row, batch[i].args); refused != "" {
			s.settle()
			s.refuse(batch[i].row, refused, mute)
			continue
		}
		s.perform(batch[i].row, batch[i].args, mute)
	}
	s.settle()
	s.endTransaction()
	if s.sub != nil {
		s.handOver()
		s.sub.out.release()
	}
}

// mayExec reports whether the batch may run; otherwise it writes the answer.
func (s *session) mayExec(w *Reply) bool {
	switch {
	case s.door() == Cluster && s.tx.crossesSlots():
		w.Error(errCrossSlot)
		return false
	case s.tx.spoiled:
		w.Error(errAborted)
		return false
	}
	broken, err := s.watchBroken()
	switch {
	case err != nil:
		w.Error(abortedBy(errorText(err)))
	case broken:
		w.NullArray()
	}
	return err == nil && !broken
}

// crossesSlots reports whether the batch has keys of several slots.
func (t *transaction) crossesSlots() bool {
	slot, met := ring.Slot(0), false
	for _, q := range t.queue {
		if !q.row.data {
			continue
		}
		for _, i := range q.row.keyPositions(q.args) {
			switch here := ring.SlotOf(q.args[i]); {
			case !met:
				slot, met = here, true
			case here != slot:
				return true
			}
		}
	}
	return false
}
