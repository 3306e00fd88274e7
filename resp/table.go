package resp

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/redynamo/redynamo/resp/acl"
)

// A handler answers a command at once. args[0] is the command as the client
// typed it. The slices are private to the command and may be kept, but one kept
// slice pins all the arguments.
type handler func(s *session, args [][]byte, w *Reply)

// A starter begins a command and returns without waiting for it. It must not
// write a reply; the reply is written by the pending it returns. An error found
// while parsing is a pending too: see failed.
type starter func(s *session, args [][]byte) pending

// A pending is a started command. finish waits for the outcome, writes exactly
// one reply and gives the pending back to its pool: it is called exactly once.
type pending interface {
	finish(w *Reply)
}

// A command is one row of the table. Exactly one of run, start and batch is set, unless
// the command is a pure container of subcommands.
type command struct {
	name       string // lower case; for a subcommand the bare word ("getkeys")
	arity      int    // as Redis counts it: with the name; negative = at least
	flags      []string
	first      int // first key argument, 0 = no keys
	last       int // last key argument, negative counts from the end
	step       int
	categories []string // ACL categories without '@', as Redis derives them
	keySpec    []string // flags of the key specification: "RO", "ACCESS", ...
	// secondSpec has the flags of all keys but the first, where they differ: a
	// second specification.
	secondSpec []string
	tips       []string
	group      string // documentation group: "string", "generic", ...
	summary    string
	since      string // the Redis version that had it first, or redynamo's
	complexity string
	args       []argument // documentation of the arguments
	run        handler
	start      starter

	// keyFlags says what the command does with its key when that hangs on its
	// options. Nil for ordinary commands: keySpec says it.
	keyFlags func(args [][]byte) []string

	// keys finds the key arguments when first/last/step cannot say it: the
	// positions in args. Nil for ordinary commands.
	keys func(args [][]byte) []int

	// channels says which arguments are channels, for the rules of access.
	channels channelArgs

	// pushes marks commands that queue messages or confirmations, or change how they
	// look: what was answered before is queued before.
	pushes bool
	// blocks marks commands that may wait for long: what was answered before leaves first.
	blocks bool
	// subscribed marks what a RESP2 connection with subscriptions may still ask.
	subscribed bool

	// level is the level of the cluster from which on the command is served: what it
	// writes or sends no program of an earlier one can read. 0: always.
	level uint16

	// reads marks commands that look at their keys although Redis gives them no
	// flag that says so.
	reads bool
	// atOnce marks commands that are not queued behind MULTI.
	atOnce bool
	// barred is the refusal of a command that nobody may run, and nobody queue, but for
	// connections that are allowed to. Nil: there are none.
	barred  string
	allowed func(*session) bool
	// batch marks EXEC, whose reply is made of those of other commands.
	batch bool

	subcommands []command

	// Filled when the table is built.
	full   string // "get", or "command|getkeys"
	id     acl.ID // in the catalog that rules of access speak of
	writes bool   // has flag write
	data   bool   // reads or writes keys: waits for readiness
	noAuth bool   // allowed before login
	// replyMode marks commands that decide by themselves whether they answer.
	replyMode bool
	sub       map[string]*command
	stats     *rowStats
}

// rowStats counts what became of a command, for INFO and the metrics.
type rowStats struct {
	calls, nanos, failed, rejected atomic.Int64
	took                           histogram
}

// An argument documents one argument of a command, for COMMAND DOCS.
type argument struct {
	name     string
	kind     string // key, string, integer, double, pattern, unix-time, pure-token, oneof, block
	token    string // the literal word before it, if any
	keySpec  int    // kind key: index of the key specification
	optional bool
	multiple bool
	args     []argument // of oneof and block
}

// commands is the whole table, group by group.
func commands() []command {
	var all []command
	all = append(all, connectionCommands()...)
	all = append(all, serverCommands()...)
	all = append(all, waitCommands()...)
	all = append(all, clusterCommands()...)
	all = append(all, ringCommands()...)
	all = append(all, stringCommands()...)
	all = append(all, bitmapCommands()...)
	all = append(all, keyCommands()...)
	all = append(all, transactionCommands()...)
	all = append(all, pubsubCommands()...)
	all = append(all, vctxCommands()...)
	return all
}

// A Row says what people want to know of one command.
type Row struct {
	Name        string // lower case
	Arity       int    // as Redis counts it: with the name; negative = at least
	Group       string // documentation group
	Summary     string
	Subcommands []string // in the order of the table
}

// Rows lists every command, group by group. README's list is made of it, by a
// test in integration.
func Rows() []Row {
	var rows []Row
	for _, c := range commands() {
		r := Row{Name: c.name, Arity: c.arity, Group: c.group, Summary: c.summary}
		for _, sub := range c.subcommands {
			r.Subcommands = append(r.Subcommands, sub.name)
		}
		rows = append(rows, r)
	}
	return rows
}

// A table is the rows of one server, ready for lookup.
type table struct {
	rows   []*command // by name
	byName map[string]*command
}

// nameBytes is more than the longest command name.
const nameBytes = 32

func newTable(rows []command) (*table, error) {
	t := &table{byName: make(map[string]*command, len(rows))}
	var errs []error
	for i := range rows {
		row := &rows[i]
		errs = append(errs, row.prepare(nil))
		if t.byName[row.name] != nil {
			errs = append(errs, fmt.Errorf("command %q is there twice", row.name))
		}
		t.byName[row.name] = row
		t.rows = append(t.rows, row)
	}
	slices.SortFunc(t.rows, func(a, b *command) int { return cmp.Compare(a.name, b.name) })
	return t, errors.Join(errs...)
}

// prepare checks a row and fills what is derived.
func (c *command) prepare(parent *command) error {
	c.full = c.name
	if parent != nil {
		c.full = parent.name + "|" + c.name
	}
	c.writes = c.has("write")
	c.noAuth = c.has("no_auth")
	c.data = (c.writes || c.has("readonly")) && !c.has("loading") && c.group != "scripting" || c.reads
	c.stats = new(rowStats)
	c.deriveCategories()
	slices.SortStableFunc(c.flags, func(a, b string) int {
		return cmp.Compare(slices.Index(flagOrder[:], a), slices.Index(flagOrder[:], b))
	})
	if c.barred != "" && c.allowed == nil {
		c.run = func(_ *session, _ [][]byte, w *Reply) { w.Error(c.barred) }
	}
	var errs []error
	if (c.run != nil) == (c.start != nil) != c.batch && len(c.subcommands) == 0 {
		errs = append(errs, fmt.Errorf("command %q needs one of run, start and batch", c.full))
	}
	if c.name == "" || len(c.name) >= nameBytes || c.name != strings.ToLower(c.name) || c.arity == 0 {
		errs = append(errs, fmt.Errorf("command %q: bad name or arity", c.full))
	}
	if c.first > 0 && c.step <= 0 {
		errs = append(errs, fmt.Errorf("command %q: keys without a step", c.full))
	}
	c.sub = make(map[string]*command, len(c.subcommands))
	for i := range c.subcommands {
		sub := &c.subcommands[i]
		errs = append(errs, sub.prepare(c))
		c.sub[sub.name] = sub
	}
	if c.run == nil && c.start == nil && !c.batch {
		c.run = func(s *session, args [][]byte, w *Reply) { w.Error(c.arityText()) }
	}
	return errors.Join(errs...)
}

func (c *command) has(flag string) bool { return slices.Contains(c.flags, flag) }

// flagOrder and categoryOrder are the orders in which Redis lists them.
var (
	flagOrder = [...]string{"write", "readonly", "denyoom", "module", "admin", "pubsub", "noscript", "blocking",
		"loading", "stale", "skip_monitor", "skip_slowlog", "asking", "fast", "no_auth", "may_replicate",
		"no_async_loading", "no_multi", "movablekeys", "allow_busy"}
	categoryOrder = [...]string{"keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap",
		"hyperloglog", "geo", "stream", "pubsub", "admin", "fast", "slow", "blocking", "dangerous", "connection",
		"transaction", "scripting"}
)

// deriveCategories adds the ACL categories that follow from the flags.
func (c *command) deriveCategories() {
	if c.has("write") {
		c.categories = append(c.categories, "write")
	}
	if c.has("readonly") && !slices.Contains(c.categories, "scripting") {
		c.categories = append(c.categories, "read")
	}
	if c.has("admin") {
		c.categories = append(c.categories, "admin", "dangerous")
	}
	if c.has("fast") {
		c.categories = append(c.categories, "fast")
	} else {
		c.categories = append(c.categories, "slow")
	}
	slices.SortFunc(c.categories, func(a, b string) int {
		return cmp.Compare(slices.Index(categoryOrder[:], a), slices.Index(categoryOrder[:], b))
	})
	c.categories = slices.Compact(c.categories)
}

// find returns the row for args, or what to answer instead. Arity is checked.
func (t *table) find(args [][]byte) (row *command, refused string) {
	row = t.lookup(args)
	if row == nil {
		if parent := t.named(args[0]); parent != nil {
			return nil, "ERR unknown subcommand '" + clip(args[1], shownBytes) + "'. Try " +
				strings.ToUpper(parent.name) + " HELP."
		}
		return nil, unknownText(args)
	}
	if (row.arity > 0 && row.arity != len(args)) || len(args) < -row.arity {
		return row, row.arityText()
	}
	return row, ""
}

// lookup returns the row for args, or nil. The first argument of a container
// must be one of its subcommands.
func (t *table) lookup(args [][]byte) *command {
	row := t.named(args[0])
	if row == nil || len(row.subcommands) == 0 || len(args) == 1 {
		return row
	}
	var room [nameBytes]byte
	return row.sub[string(fold(room[:0], args[1]))]
}

func (t *table) named(name []byte) *command {
	var room [nameBytes]byte
	return t.byName[string(fold(room[:0], name))]
}

// fold appends name in lower case; of a name that is too long to be one of ours
// it leaves nothing.
func fold(dst, name []byte) []byte {
	if len(name) >= nameBytes {
		return dst
	}
	for _, c := range name {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

func (c *command) arityText() string {
	return "ERR wrong number of arguments for '" + c.full + "' command"
}

// shownBytes is how much of a client's words an error repeats.
const shownBytes = 128

// unknownText names the command and the beginning of its arguments, as typed.
func unknownText(args [][]byte) string {
	var shown strings.Builder
	for _, arg := range args[1:] {
		if shown.Len() >= shownBytes {
			break
		}
		shown.WriteString("'" + clip(arg, shownBytes-shown.Len()) + "' ")
	}
	if why := whyUnknown(args[0]); why != "" {
		shown.WriteString("(" + why + ")")
	}
	return "ERR unknown command '" + clip(args[0], shownBytes) + "', with args beginning with: " + shown.String()
}

// clip is the beginning of b; Redis stops at a NUL.
func clip(b []byte, n int) string {
	b = b[:min(n, len(b))]
	if i := slices.Index(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// keyRange gives the positions of the keys among argc arguments: first, last
// (included), step. A first of 0 means none, or that keys must be asked.
func (c *command) keyRange(argc int) (first, last, step int) {
	if c.first == 0 || c.first >= argc {
		return 0, 0, 1
	}
	last = c.last
	if last < 0 {
		last += argc
	}
	return c.first, max(c.first, min(last, argc-1)), c.step
}

// keyPositions lists the positions of the keys in args.
func (c *command) keyPositions(args [][]byte) []int {
	if c.keys != nil {
		return c.keys(args)
	}
	var at []int
	first, last, step := c.keyRange(len(args))
	for i := first; first > 0 && i <= last; i += step {
		at = append(at, i)
	}
	return at
}
