package integration

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/redynamo/redynamo/resp"
)

var update = flag.Bool("update", false, "write README's command list anew")

const (
	readme        = "../README.md"
	commandsBegin = "<!-- commands:begin -->\n"
	commandsEnd   = "<!-- commands:end -->\n"
)

// commandGroups are the groups in the order in which a reader wants them.
var commandGroups = []string{"string", "bitmap", "generic", "transactions", "vctx", "pubsub", "connection", "cluster", "server", "scripting"}

func TestReadmeListsTheCommandsOfTheTable(t *testing.T) {
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(text), commandsBegin)
	got, after, ended := strings.Cut(rest, commandsEnd)
	if !begun || !ended {
		t.Fatalf("%s has no block between %q and %q", readme, commandsBegin, commandsEnd)
	}
	want := commandList(t, resp.Rows())
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("README's command list is not that of the table; run this test with -update. It should be\n%s", want)
	}
	if err := os.WriteFile(readme, []byte(before+commandsBegin+want+commandsEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// commandList is the rows as a table, group by group.
func commandList(t *testing.T, rows []resp.Row) string {
	t.Helper()
	for _, r := range rows {
		if !slices.Contains(commandGroups, r.Group) {
			t.Errorf("command %s is of group %q, which has no place in the list", r.Name, r.Group)
		}
	}
	slices.SortFunc(rows, func(a, b resp.Row) int {
		return cmp.Or(cmp.Compare(slices.Index(commandGroups, a.Group), slices.Index(commandGroups, b.Group)), cmp.Compare(a.Name, b.Name))
	})
	var out strings.Builder
	out.WriteString("| command | words | what |\n|---|---|---|\n")
	group := ""
	for _, r := range rows {
		if r.Group != group {
			group = r.Group
			fmt.Fprintf(&out, "| **%s** | | |\n", group)
		}
		what := strings.TrimSuffix(r.Summary, ".")
		if len(r.Subcommands) > 0 {
			slices.Sort(r.Subcommands)
			what += ". Subcommands: " + strings.ToUpper(strings.Join(r.Subcommands, ", "))
		}
		fmt.Fprintf(&out, "| %s | %s | %s |\n", strings.ToUpper(r.Name), wordCount(r.Arity), what)
	}
	return out.String()
}

// wordCount shows an arity: how many words a command has, its name included.
func wordCount(arity int) string {
	if arity < 0 {
		return fmt.Sprintf("%d+", -arity)
	}
	return fmt.Sprint(arity)
}
