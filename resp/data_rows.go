package resp

import "strings"

// The rows of the data commands say only what distinguishes them; completed
// fills in the rest as Redis derives it.

const complexityN = "O(N)"

// words splits a row's list.
func words(list string) []string { return strings.Fields(list) }

// arguments documents arguments given as "name kind", with "..." for one that
// repeats.
func arguments(list ...string) []argument {
	out := make([]argument, len(list))
	for i, a := range list {
		name, kind, _ := strings.Cut(a, " ")
		kind, multiple := strings.CutSuffix(kind, "...")
		out[i] = argument{name: name, kind: kind, multiple: multiple}
	}
	return out
}

// option documents an optional argument behind a word, or the word alone (kind
// pure-token).
func option(name, kind, token string) argument {
	return argument{name: name, kind: kind, token: token, optional: true}
}

// choice documents an optional choice between arguments.
func choice(name string, args ...argument) argument {
	for i := range args {
		args[i].optional = false
	}
	return argument{name: name, kind: "oneof", optional: true, args: args}
}

// expiryArgument documents the expiry of a write; the last choice is a word.
func expiryArgument(name, token string) argument {
	return choice("expiration",
		option("seconds", "integer", "EX"),
		option("milliseconds", "integer", "PX"),
		option("unix-time-seconds", "unix-time", "EXAT"),
		option("unix-time-milliseconds", "unix-time", "PXAT"),
		option(name, "pure-token", token))
}

func setArguments() []argument {
	return append(arguments("key key", "value string"),
		choice("condition", option("nx", "pure-token", "NX"), option("xx", "pure-token", "XX")),
		option("get", "pure-token", "GET"),
		expiryArgument("keepttl", "KEEPTTL"))
}

// completed fills rows of one documentation group and one ACL category: a row
// with a key specification and no positions has one key, its first argument.
func completed(group, category string, rows []command) []command {
	for i := range rows {
		c := &rows[i]
		c.group = group
		if c.complexity == "" {
			c.complexity = "O(1)"
		}
		if len(c.keySpec) > 0 {
			orDefault(&c.first, 1)
			orDefault(&c.last, c.first)
			orDefault(&c.step, 1)
		}
		c.categories = append(derivedCategories(c.flags, category), c.categories...)
	}
	return rows
}

// derivedCategories are the ACL categories that follow from a row's flags, in
// the order in which Redis lists them.
func derivedCategories(flags []string, category string) []string {
	var out []string
	speed := "slow"
	if category == "keyspace" {
		out = append(out, category)
	}
	for _, f := range flags {
		switch f {
		case "readonly":
			out = append(out, "read")
		case "write":
			out = append(out, "write")
		case "fast":
			speed = "fast"
		}
	}
	if category == "string" {
		out = append(out, category)
	}
	return append(out, speed)
}
