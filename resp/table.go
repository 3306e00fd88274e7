package resp

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

// A command is one row of the table. Exactly one of run and start is set, unless
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
	tips       []string
	group      string // documentation group: "string", "generic", ...
	summary    string
	since      string // the Redis version that had it first, or redynamo's
	complexity string
	args       []argument // documentation of the arguments
	run        handler
	start      starter

	// keys finds the key arguments when first/last/step cannot say it: the
	// positions in args. Nil for ordinary commands.
	keys func(args [][]byte) []int

	subcommands []command

	// Filled when the table is built.
	full     string // "get", or "command|getkeys"
	writes   bool   // has flag write
	data     bool   // reads or writes keys: waits for readiness
	loggedIn bool   // refused before AUTH when a password is set
	sub      map[string]*command
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
	all = append(all, clusterCommands()...)
	all = append(all, stringCommands()...)
	all = append(all, keyCommands()...)
	all = append(all, vctxCommands()...)
	return all
}
