package resp

import (
	"slices"
	"strings"

	"github.com/redynamo/redynamo/resp/glob"
)

func commandSubcommands() []command {
	flags, order := words("loading stale"), words("nondeterministic_output_order")
	name := []argument{{name: "command-name", kind: "string", optional: true, multiple: true}}
	rows := []command{
		{name: "count", arity: 2, run: commandCount, since: "2.8.13", summary: "Counts the commands."},
		{name: "docs", arity: -2, run: commandDocs, tips: order, since: "7.0.0", summary: "Documents commands.", args: name},
		{name: "getkeys", arity: -4, run: commandGetKeys, since: "2.8.13", summary: "Finds the keys of a command.",
			args: arguments("command string", "arg string...")},
		{name: "getkeysandflags", arity: -4, run: commandGetKeysAndFlags, since: "7.0.0", summary: "Finds the keys of a command, and what it does with them.",
			args: arguments("command string", "arg string...")},
		{name: "help", arity: 2, since: "5.0.0", summary: "Lists the subcommands."},
		{name: "info", arity: -2, run: commandInfo, tips: order, since: "2.8.13", summary: "Describes commands.", args: name},
		{name: "list", arity: -2, run: commandList, tips: order, since: "7.0.0", summary: "Names the commands.", args: listArguments()},
	}
	rows[4].run = helper("command", rows)
	for i := range rows {
		rows[i].flags, rows[i].group, rows[i].complexity = slices.Clone(flags), "server", "O(N) with N = commands"
		rows[i].categories = words("connection")
	}
	return rows
}

func listArguments() []argument {
	return []argument{{name: "filterby", kind: "oneof", token: "FILTERBY", optional: true, args: []argument{
		{name: "module-name", kind: "string", token: "MODULE"},
		{name: "category", kind: "string", token: "ACLCAT"},
		{name: "pattern", kind: "pattern", token: "PATTERN"}}}}
}

func runCommand(s *session, _ [][]byte, w *Reply) {
	rows := s.srv.table.rows
	w.Array(len(rows))
	for _, row := range rows {
		row.describe(w)
	}
}

func commandCount(s *session, _ [][]byte, w *Reply) { w.Int(int64(len(s.srv.table.rows))) }

// commandInfo describes the named commands, or all; unknown ones are null.
func commandInfo(s *session, args [][]byte, w *Reply) {
	if len(args) == 2 {
		runCommand(s, args, w)
		return
	}
	w.Array(len(args) - 2)
	for _, name := range args[2:] {
		if row := s.srv.table.path(name); row != nil {
			row.describe(w)
		} else {
			w.Null()
		}
	}
}

// path finds "get" and "client|list".
func (t *table) path(name []byte) *command {
	parent, sub, nested := strings.Cut(strings.ToLower(clip(name, 2*nameBytes)), "|")
	row := t.byName[parent]
	if row == nil || !nested {
		return row
	}
	return row.sub[sub]
}

// describe writes a COMMAND entry. It has ten elements: clients that meet a
// length they do not know ask again for ever.
func (c *command) describe(w *Reply) {
	w.Array(10)
	w.BulkString(c.full)
	w.Int(int64(c.arity))
	w.Set(len(c.flags))
	for _, f := range c.flags {
		w.Simple(f)
	}
	w.Int(int64(c.first))
	w.Int(int64(c.last))
	w.Int(int64(c.step))
	w.Set(len(c.categories))
	for _, category := range c.categories {
		w.Simple("@" + category)
	}
	w.Set(len(c.tips))
	for _, tip := range c.tips {
		w.BulkString(tip)
	}
	c.describeKeys(w)
	if len(c.subcommands) == 0 {
		w.Set(0) // so Redis
		return
	}
	w.Array(len(c.subcommands))
	for i := range c.subcommands {
		c.subcommands[i].describe(w)
	}
}

// describeKeys writes the key specifications.
func (c *command) describeKeys(w *Reply) {
	last := c.last
	if last > 0 {
		last -= c.first
	}
	switch {
	case len(c.keySpec) == 0:
		w.Set(0)
	case len(c.secondSpec) == 0:
		w.Set(1)
		writeKeySpec(w, c.keySpec, c.first, last, c.step)
	default:
		if last > 0 {
			last -= c.step // from the second key on
		}
		w.Set(2)
		writeKeySpec(w, c.keySpec, c.first, 0, c.step)
		writeKeySpec(w, c.secondSpec, c.first+c.step, last, c.step)
	}
}

// writeKeySpec writes one specification; a positive last counts from first.
func writeKeySpec(w *Reply, flags []string, first, last, step int) {
	w.Map(3)
	w.BulkString("flags")
	w.Set(len(flags))
	for _, f := range flags {
		w.Simple(f)
	}
	w.BulkString("begin_search")
	w.Map(2)
	w.BulkString("type")
	w.BulkString("index")
	w.BulkString("spec")
	w.Map(1)
	w.BulkString("index")
	w.Int(int64(first))
	w.BulkString("find_keys")
	w.Map(2)
	w.BulkString("type")
	w.BulkString("range")
	w.BulkString("spec")
	w.Map(3)
	w.BulkString("lastkey")
	w.Int(int64(last))
	w.BulkString("keystep")
	w.Int(int64(step))
	w.BulkString("limit")
	w.Int(0)
}

func commandList(s *session, args [][]byte, w *Reply) {
	keep := func(*command) bool { return true }
	if len(args) > 2 {
		if len(args) != 5 || !equalFold(args[2], "filterby") {
			w.Error(errSyntax)
			return
		}
		switch value := args[4]; {
		case equalFold(args[3], "module"):
			keep = func(*command) bool { return false }
		case equalFold(args[3], "aclcat"):
			category := strings.ToLower(string(value))
			keep = func(c *command) bool { return slices.Contains(c.categories, category) }
		case equalFold(args[3], "pattern"):
			pattern := glob.Compile(fold256(value))
			keep = func(c *command) bool {
				ok, err := pattern.Match([]byte(c.full))
				return err == nil && ok
			}
		default:
			w.Error(errSyntax)
			return
		}
	}
	var names []string
	s.srv.table.each(func(row *command) {
		if keep(row) {
			names = append(names, row.full)
		}
	})
	if len(args) > 2 {
		w.Array(len(names)) // so Redis
	} else {
		w.Set(len(names))
	}
	for _, name := range names {
		w.BulkString(name)
	}
}

// inner finds the command that GETKEYS is about, with its keys.
func (s *session) inner(args [][]byte) (row *command, at []int, refused string) {
	row = s.srv.table.lookup(args)
	switch {
	case row == nil:
		return nil, nil, "ERR Invalid command specified"
	case row.first == 0 && row.keys == nil, slices.Contains(row.keySpec, "not_key"):
		return nil, nil, "ERR The command has no key arguments"
	case (row.arity > 0 && row.arity != len(args)) || len(args) < -row.arity:
		return nil, nil, "ERR Invalid number of arguments specified for command"
	}
	if at = row.keyPositions(args); len(at) == 0 {
		return nil, nil, "ERR Invalid arguments specified for command"
	}
	return row, at, ""
}

func commandGetKeys(s *session, args [][]byte, w *Reply) {
	_, at, refused := s.inner(args[2:])
	if refused != "" {
		w.Error(refused)
		return
	}
	w.Array(len(at))
	for _, i := range at {
		w.Bulk(args[2+i])
	}
}

func commandGetKeysAndFlags(s *session, args [][]byte, w *Reply) {
	row, at, refused := s.inner(args[2:])
	if refused != "" {
		w.Error(refused)
		return
	}
	flags := row.keySpec
	if row.keyFlags != nil {
		flags = row.keyFlags(args[2:])
	}
	w.Array(len(at))
	for n, i := range at {
		if n > 0 && len(row.secondSpec) > 0 {
			flags = row.secondSpec
		}
		w.Array(2)
		w.Bulk(args[2+i])
		w.Set(len(flags))
		for _, f := range flags {
			w.Simple(f)
		}
	}
}

// commandDocs documents the named commands, or all; unknown ones are left out.
func commandDocs(s *session, args [][]byte, w *Reply) {
	rows := s.srv.table.rows
	if len(args) > 2 {
		rows = nil
		for _, name := range args[2:] {
			if row := s.srv.table.path(name); row != nil {
				rows = append(rows, row)
			}
		}
	}
	w.Map(len(rows))
	for _, row := range rows {
		row.document(w)
	}
}

// document writes a name and its documentation.
func (c *command) document(w *Reply) {
	w.BulkString(c.full)
	n := 4
	if len(c.args) > 0 {
		n++
	}
	if len(c.subcommands) > 0 {
		n++
	}
	w.Map(n)
	pair := func(name, value string) {
		w.BulkString(name)
		w.BulkString(value)
	}
	pair("summary", c.summary)
	pair("since", c.since)
	pair("group", c.group)
	pair("complexity", c.complexity)
	if len(c.args) > 0 {
		w.BulkString("arguments")
		writeArguments(w, c.args)
	}
	if len(c.subcommands) > 0 {
		w.BulkString("subcommands")
		w.Map(len(c.subcommands))
		for i := range c.subcommands {
			c.subcommands[i].document(w)
		}
	}
}

func writeArguments(w *Reply, args []argument) {
	w.Array(len(args))
	for i := range args {
		args[i].document(w)
	}
}

func (a *argument) document(w *Reply) {
	var flags []string
	if a.optional {
		flags = append(flags, "optional")
	}
	if a.multiple {
		flags = append(flags, "multiple")
	}
	n := 2
	for _, there := range []bool{a.kind == "key", a.token != "", len(flags) > 0, len(a.args) > 0} {
		if there {
			n++
		}
	}
	w.Map(n)
	pair := func(name, value string) {
		w.BulkString(name)
		w.BulkString(value)
	}
	pair("name", a.name)
	pair("type", a.kind)
	if a.kind == "key" {
		w.BulkString("key_spec_index")
		w.Int(int64(a.keySpec))
	}
	if a.token != "" {
		pair("token", a.token)
	}
	if len(flags) > 0 {
		w.BulkString("flags")
		w.Set(len(flags))
		for _, f := range flags {
			w.Simple(f)
		}
	}
	if len(a.args) > 0 {
		w.BulkString("arguments")
		writeArguments(w, a.args)
	}
}
