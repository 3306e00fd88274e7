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

var update = flag.Bool("update", false, "write README's lists of commands and clients anew")

const readme = "../README.md"

// readmeBlock is what README has between the marks of a name.
func readmeBlock(t *testing.T, name string) string {
	t.Helper()
	_, block, _ := cutReadme(t, name)
	return block
}

// writeReadmeBlock puts another text between the marks.
func writeReadmeBlock(t *testing.T, name, text string) {
	t.Helper()
	before, _, after := cutReadme(t, name)
	if err := os.WriteFile(readme, []byte(before+text+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// cutReadme has the marks at the ends of before and after.
func cutReadme(t *testing.T, name string) (before, block, after string) {
	t.Helper()
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := fmt.Sprintf("<!-- %s:begin -->\n", name), fmt.Sprintf("<!-- %s:end -->\n", name)
	before, rest, begun := strings.Cut(string(text), begin)
	block, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		t.Fatalf("%s has no block between %q and %q", readme, begin, end)
	}
	return before + begin, block, end + after
}

// commandGroups are the groups in the order in which a reader wants them.
var commandGroups = []string{"string", "bitmap", "generic", "transactions", "vctx", "pubsub", "connection", "cluster", "server", "scripting"}

func TestReadmeListsTheCommandsOfTheTable(t *testing.T) {
	got, want := readmeBlock(t, "commands"), commandList(t, resp.Rows())
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("README's command list is not that of the table; run this test with -update. It should be\n%s", want)
	}
	writeReadmeBlock(t, "commands", want)
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
