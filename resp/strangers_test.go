package resp

import (
	"strings"
	"testing"
)

func TestWhatIsNotOfferedSaysWhy(t *testing.T) {
	table, err := newTable(commands())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, name := range strings.Fields(f.names) {
			if table.byName[name] != nil {
				t.Errorf("%s is offered", name)
			}
		}
	}
	c := newDataDoor(t).connect()
	for command, want := range map[string]string{
		"LPush k a b":  "-ERR unknown command 'LPush', with args beginning with: 'k' 'a' 'b' (lists are not offered: keep one in a value, and join siblings with VCTX.GET and VCTX.SET)\r\n",
		"xread":        "-ERR unknown command 'xread', with args beginning with: (streams are not offered: their order needs one owner)\r\n",
		"lpus k":       "-ERR unknown command 'lpus', with args beginning with: 'k' \r\n",
		"EVAL_RO s 0":  "-ERR unknown command 'EVAL_RO', with args beginning with: 's' '0' (scripts are not offered: nothing here is one step over several keys)\r\n",
		"get|lpush k ": "-ERR unknown command 'get|lpush', with args beginning with: 'k' \r\n",
	} {
		if got := c.line(command); got != want {
			t.Errorf("%s: got %q", command, got)
		}
	}
}
